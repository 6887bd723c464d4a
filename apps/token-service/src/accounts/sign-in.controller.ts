import { Controller, Inject, Req } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { Answer, Call, Caller, Input, type InputOf, type LatchkeyRequest, Refusal, readCookie } from '../http/index.js';
import { LettersService } from './letters.service.js';
import { FailedElsewhere, OIDC_PATH, OIDC_SECONDS, OidcService } from './oidc.service.js';
import { OwnPasswordsService } from './own-passwords.service.js';
import { mustBePerson } from './person.rules.js';
import { SecondFactorService } from './second-factor.service.js';
import { SessionsService } from './sessions.service.js';

const NOTHING = new Answer(204);

/** The HTTP door of everything around signing in: other services, second factors, passwords, one's sign-ins. */
@Controller()
export class SignInController {
  constructor(
    private readonly sessions: SessionsService,
    private readonly factors: SecondFactorService,
    private readonly passwords: OwnPasswordsService,
    private readonly letters: LettersService,
    private readonly oidc: OidcService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  @Call('signInOptions')
  async options() {
    return { password: true, forgotPassword: await this.letters.areCarried(), oidc: this.oidc.offer };
  }

  @Call('startOidc')
  startOidc(@Req() request: LatchkeyRequest) {
    return this.#orBackToSignIn(request, async () => {
      const { url, journey } = await this.oidc.start();
      return new Answer(302, undefined, { location: url, 'set-cookie': this.#journeyCookie(journey, OIDC_SECONDS) });
    });
  }

  @Call('finishOidc')
  finishOidc(@Input('finishOidc') _: InputOf<'finishOidc'>, @Req() request: LatchkeyRequest) {
    return this.#orBackToSignIn(request, async () => {
      const search = new URL(request.url, 'http://here').search;
      const user = await this.oidc.finish(search, readCookie(request.headers.cookie, this.#journeyName));
      const cookie = await this.sessions.startFor(user);
      const location = new URL('/', this.config.PUBLIC_URL).href;
      return new Answer(302, undefined, { location, 'set-cookie': [cookie, this.#journeyCookie('', 0)] });
    });
  }

  /** A browser that comes by an address is sent back to the sign-in page, which says what went wrong; others get the problem. */
  async #orBackToSignIn(request: LatchkeyRequest, work: () => Promise<Answer>): Promise<Answer> {
    try {
      return await work();
    } catch (error) {
      const cause =
        error instanceof FailedElsewhere
          ? error.why
          : error instanceof Refusal && error.code === 'unavailable' && 'away';
      if (!cause || !request.headers.accept?.includes('text/html')) throw error;
      const place = new URL('/', this.config.PUBLIC_URL);
      place.hash = `/sign-in?failed=${cause}&requestId=${encodeURIComponent(request.latchkey.requestId)}`;
      return new Answer(302, undefined, { location: place.href, 'set-cookie': this.#journeyCookie('', 0) });
    }
  }

  @Call('listSessions')
  async list(@Caller() actor: Actor) {
    mustBePerson(actor);
    return { items: await this.sessions.listOwn(actor) };
  }

  @Call('endSessions')
  async endAll(@Caller() actor: Actor) {
    mustBePerson(actor);
    await this.sessions.endAll(actor);
    return new Answer(204, undefined, { 'set-cookie': this.sessions.cookie('', 0) });
  }

  @Call('endSession')
  async end(@Caller() actor: Actor, @Input('endSession') { params }: InputOf<'endSession'>) {
    mustBePerson(actor);
    await this.sessions.endOwn(actor, params.id);
    return NOTHING;
  }

  @Call('changePassword')
  async changePassword(@Caller() actor: Actor, @Input('changePassword') { body }: InputOf<'changePassword'>) {
    mustBePerson(actor);
    await this.passwords.change(actor, body);
    return NOTHING;
  }

  @Call('setPassword')
  async setPassword(@Input('setPassword') { body }: InputOf<'setPassword'>) {
    await this.passwords.setWithCode(body);
    return NOTHING;
  }

  @Call('forgotPassword')
  async forgotPassword(@Input('forgotPassword') { body }: InputOf<'forgotPassword'>) {
    await this.letters.askForReset(body.email);
    return new Answer(202);
  }

  @Call('resetPassword')
  resetPassword(@Caller() actor: Actor, @Input('resetPassword') { params }: InputOf<'resetPassword'>) {
    return this.passwords.makeReset(actor, params.id);
  }

  @Call('getSecondFactor')
  async getFactor(@Caller() actor: Actor) {
    mustBePerson(actor);
    return this.factors.stateOf(actor.userId);
  }

  @Call('startSecondFactor')
  startFactor(@Caller() actor: Actor, @Input('startSecondFactor') { body }: InputOf<'startSecondFactor'>) {
    mustBePerson(actor);
    return this.factors.start(actor, body.password);
  }

  @Call('confirmSecondFactor')
  async confirmFactor(@Caller() actor: Actor, @Input('confirmSecondFactor') { body }: InputOf<'confirmSecondFactor'>) {
    mustBePerson(actor);
    return { recoveryCodes: await this.factors.confirm(actor, body.code) };
  }

  @Call('makeRecoveryCodes')
  async makeRecoveryCodes(@Caller() actor: Actor, @Input('makeRecoveryCodes') { body }: InputOf<'makeRecoveryCodes'>) {
    mustBePerson(actor);
    return { recoveryCodes: await this.factors.makeRecoveryCodes(actor, body.password, body.code) };
  }

  @Call('removeSecondFactor')
  async removeFactor(@Caller() actor: Actor, @Input('removeSecondFactor') { body }: InputOf<'removeSecondFactor'>) {
    mustBePerson(actor);
    await this.factors.remove(actor, body.password, body.code);
    return NOTHING;
  }

  @Call('resetSecondFactor')
  async resetFactor(@Caller() actor: Actor, @Input('resetSecondFactor') { params }: InputOf<'resetSecondFactor'>) {
    await this.factors.reset(actor, params.id);
    return NOTHING;
  }

  get #journeyName(): string {
    return this.#secure ? '__Secure-latchkey_oidc' : 'latchkey_oidc';
  }

  get #secure(): boolean {
    return this.config.PUBLIC_URL.startsWith('https:');
  }

  /** Lax, since the browser comes back from another site with it. */
  #journeyCookie(value: string, maxAge: number): string {
    const secure = this.#secure ? '; Secure' : '';
    return `${this.#journeyName}=${value}; Path=${OIDC_PATH}; HttpOnly; SameSite=Lax; Max-Age=${maxAge}${secure}`;
  }
}
