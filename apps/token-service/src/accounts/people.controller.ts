import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, HttpResponse, Input, type InputOf, Prefer } from '../http/index.js';
import { TokensService } from '../tokens/index.js';
import { PeopleService } from './people.service.js';

/** HTTP endpoints of people. */
@Controller()
export class PeopleController {
  constructor(
    private readonly people: PeopleService,
    private readonly tokens: TokensService,
  ) {}

  @Call('listUsers')
  list(@Caller() actor: Actor, @Input() { query }: InputOf<'listUsers'>) {
    return this.people.list(actor, query);
  }

  @Call('createUser')
  async create(@Caller() actor: Actor, @Input() { body }: InputOf<'createUser'>) {
    return new HttpResponse(201, await this.people.create(actor, body));
  }

  @Call('patchUser')
  patch(@Caller() actor: Actor, @Input() input: InputOf<'patchUser'>, @Prefer() waitMs: number | undefined) {
    return this.people.patch(actor, input.params.id, input.body, waitMs);
  }

  @Call('revokeUserTokens')
  revokeTokens(
    @Caller() actor: Actor,
    @Input() input: InputOf<'revokeUserTokens'>,
    @Prefer() waitMs: number | undefined,
  ) {
    return this.tokens.revokeAllOf(actor, input.params.id, input.body, waitMs);
  }
}
