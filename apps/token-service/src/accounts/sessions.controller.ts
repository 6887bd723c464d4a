import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { ApiError, Call, Caller, HttpResponse, Input, type InputOf } from '../http/index.js';
import { PeopleService } from './people.service.js';
import { SESSION_LIFETIME_SECONDS, SessionsService } from './sessions.service.js';

/** HTTP endpoints of sessions. */
@Controller()
export class SessionsController {
  constructor(
    private readonly sessions: SessionsService,
    private readonly people: PeopleService,
  ) {}

  @Call('signIn')
  async signIn(@Input() { body }: InputOf<'signIn'>) {
    const { user, value } = await this.sessions.signIn(body);
    return new HttpResponse(
      200,
      { user, unsettledRestoreAt: await this.sessions.unsettledRestoreAt() },
      { 'set-cookie': this.sessions.cookie(value, SESSION_LIFETIME_SECONDS) },
    );
  }

  @Call('whoAmI')
  async whoAmI(@Caller() actor: Actor) {
    const user = actor.userId === null ? null : await this.people.byId(actor.userId);
    if (!user)
      throw new ApiError('forbidden', 'A project token acts for a project, not for a person. Use /v1/tokens/self.');
    return { user, unsettledRestoreAt: await this.sessions.unsettledRestoreAt() };
  }

  @Call('signOut')
  async signOut(@Caller() actor: Actor) {
    if (actor.type !== 'user')
      throw new ApiError('forbidden', 'A token is not signed in; revoke it at /v1/tokens/self instead.');
    await this.sessions.end(actor);
    return new HttpResponse(204, undefined, { 'set-cookie': this.sessions.cookie('', 0) });
  }
}
