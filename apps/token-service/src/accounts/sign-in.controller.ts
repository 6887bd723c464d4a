import { Controller, Inject, Req } from '@nestjs/common';
import type { Actor, UserActor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import {
  ApiError,
  Call,
  Caller,
  HttpResponse,
  Input,
  type InputOf,
  type LatchkeyRequest,
  Person,
  readCookie,
  writeCookie,
} from '../http/index.js';
import { OIDC_PATH, OIDC_SECONDS, OidcService, OidcSignInError } from './oidc.service.js';
import { OwnPasswordsService } from './own-passwords.service.js';
import { PasswordEmailsService } from './password-emails.service.js';
import { SecondFactorService } from './second-factor.service.js';
import { SessionsService } from './sessions.service.js';

const NOTHING = new HttpResponse(204);

/** HTTP endpoints for signing in: identity provider, second factors, passwords, the caller's sessions. */
@Controller()
export class SignInController {
  constructor(
    private readonly sessions: SessionsService,
    private readonly factors: SecondFactorService,
    private readonly passwords: OwnPasswordsService,
    private readonly passwordEmails: PasswordEmailsService,
    private readonly oidc: OidcService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  @Call('signInOptions')
  async options() {
    return { password: true, forgotPassword: await this.passwordEmails.isMailerActive(), oidc: this.oidc.offer };
  }

  @Call('startOidc')
  startOidc(@Req() request: LatchkeyRequest) {
    return this.#orRedirectToSignIn(request, async () => {
      const { url, transaction } = await this.oidc.start();
      return new HttpResponse(302, undefined, {
        location: url,
        'set-cookie': this.#transactionCookie(transaction, OIDC_SECONDS),
      });
    });
  }

  @Call('finishOidc')
  finishOidc(@Input() _: InputOf<'finishOidc'>, @Req() request: LatchkeyRequest) {
    return this.#orRedirectToSignIn(request, async () => {
      const search = new URL(request.url, 'http://here').search;
      const user = await this.oidc.finish(search, readCookie(request.headers.cookie, this.#transactionCookieName));
      const cookie = await this.sessions.startFor(user);
      const location = new URL('/', this.config.PUBLIC_URL).href;
      return new HttpResponse(302, undefined, { location, 'set-cookie': [cookie, this.#transactionCookie('', 0)] });
    });
  }

  /** On failure redirects a browser to the sign-in page, which shows the cause; other clients get the problem. */
  async #orRedirectToSignIn(request: LatchkeyRequest, work: () => Promise<HttpResponse>): Promise<HttpResponse> {
    try {
      return await work();
    } catch (error) {
      const cause =
        error instanceof OidcSignInError
          ? error.reason
          : error instanceof ApiError && error.code === 'unavailable' && 'away';
      if (!cause || !request.headers.accept?.includes('text/html')) throw error;
      const location = new URL('/', this.config.PUBLIC_URL);
      location.hash = `/sign-in?failed=${cause}&requestId=${encodeURIComponent(request.latchkey.requestId)}`;
      return new HttpResponse(302, undefined, {
        location: location.href,
        'set-cookie': this.#transactionCookie('', 0),
      });
    }
  }

  @Call('listSessions')
  async list(@Person() actor: UserActor) {
    return { items: await this.sessions.listOwn(actor) };
  }

  @Call('endSessions')
  async endAll(@Person() actor: UserActor) {
    await this.sessions.endAll(actor);
    return new HttpResponse(204, undefined, { 'set-cookie': this.sessions.cookie('', 0) });
  }

  @Call('endSession')
  async end(@Person() actor: UserActor, @Input() { params }: InputOf<'endSession'>) {
    await this.sessions.endOwn(actor, params.id);
    return NOTHING;
  }

  @Call('changePassword')
  async changePassword(@Person() actor: UserActor, @Input() { body }: InputOf<'changePassword'>) {
    await this.passwords.change(actor, body);
    return NOTHING;
  }

  @Call('setPassword')
  async setPassword(@Input() { body }: InputOf<'setPassword'>) {
    await this.passwords.setWithCode(body);
    return NOTHING;
  }

  @Call('forgotPassword')
  async forgotPassword(@Input() { body }: InputOf<'forgotPassword'>) {
    await this.passwordEmails.requestReset(body.email);
    return new HttpResponse(202);
  }

  @Call('resetPassword')
  resetPassword(@Caller() actor: Actor, @Input() { params }: InputOf<'resetPassword'>) {
    return this.passwords.makeReset(actor, params.id);
  }

  @Call('getSecondFactor')
  async getFactor(@Person() actor: UserActor) {
    return this.factors.stateOf(actor.userId);
  }

  @Call('startSecondFactor')
  startFactor(@Person() actor: UserActor, @Input() { body }: InputOf<'startSecondFactor'>) {
    return this.factors.start(actor, body.password);
  }

  @Call('confirmSecondFactor')
  async confirmFactor(@Person() actor: UserActor, @Input() { body }: InputOf<'confirmSecondFactor'>) {
    return { recoveryCodes: await this.factors.confirm(actor, body.code) };
  }

  @Call('makeRecoveryCodes')
  async makeRecoveryCodes(@Person() actor: UserActor, @Input() { body }: InputOf<'makeRecoveryCodes'>) {
    return { recoveryCodes: await this.factors.makeRecoveryCodes(actor, body.password, body.code) };
  }

  @Call('removeSecondFactor')
  async removeFactor(@Person() actor: UserActor, @Input() { body }: InputOf<'removeSecondFactor'>) {
    await this.factors.remove(actor, body.password, body.code);
    return NOTHING;
  }

  @Call('resetSecondFactor')
  async resetFactor(@Caller() actor: Actor, @Input() { params }: InputOf<'resetSecondFactor'>) {
    await this.factors.reset(actor, params.id);
    return NOTHING;
  }

  get #transactionCookieName(): string {
    return this.config.PUBLIC_URL.startsWith('https:') ? '__Secure-latchkey_oidc' : 'latchkey_oidc';
  }

  /** Lax: the redirect back comes from another site. */
  #transactionCookie(value: string, maxAge: number): string {
    return writeCookie(this.config, {
      name: this.#transactionCookieName,
      value,
      path: OIDC_PATH,
      sameSite: 'lax',
      maxAge,
    });
  }
}
