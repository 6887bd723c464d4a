import type { User } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import * as oidc from 'openid-client';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { ApiError, notFound, unavailable } from '../http/index.js';
import { decrypt, encrypt } from './encrypted.js';
import { PeopleService } from './people.service.js';

export const OIDC_PATH = '/v1/session/oidc';
const PURPOSE = 'sign-in elsewhere';
/** How long a person may take at the other service. */
export const OIDC_SECONDS = 600;

/** What is remembered in the browser, encrypted, between going there and coming back. */
interface OidcTransaction {
  state: string;
  nonce: string;
  verifier: string;
  endsAtMs: number;
}

/** Signing in at another service: OpenID Connect, authorization code flow with PKCE (RFC 7636), state and nonce. */
@Injectable()
export class OidcService {
  #discovered: Promise<oidc.Configuration> | undefined;

  constructor(
    private readonly people: PeopleService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** For the sign-in page; null when none is configured. */
  get offer(): { name: string; url: string } | null {
    return this.config.OIDC_ISSUER ? { name: this.config.OIDC_NAME, url: OIDC_PATH } : null;
  }

  /** Where to send the browser, and what it must bring back with it. */
  async start(): Promise<{ url: string; transaction: string }> {
    const provider = await this.#provider();
    const verifier = oidc.randomPKCECodeVerifier();
    const transaction: OidcTransaction = {
      state: oidc.randomState(),
      nonce: oidc.randomNonce(),
      verifier,
      endsAtMs: Date.now() + OIDC_SECONDS * 1_000,
    };
    const url = oidc.buildAuthorizationUrl(provider, {
      redirect_uri: this.#redirectUri,
      scope: 'openid email profile',
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state: transaction.state,
      nonce: transaction.nonce,
    });
    const encrypted = encrypt(this.config.TOKEN_PEPPERS, PURPOSE, Buffer.from(JSON.stringify(transaction)));
    return { url: url.href, transaction: encrypted.toString('base64url') };
  }

  /**
   * Who came back.
   * @param search the query that the other service sent the browser back with
   * @throws ApiError `sign_in_failed`, the same for every cause; `unavailable` when the other service is away
   */
  async finish(search: string, transaction: string | undefined): Promise<User> {
    const provider = await this.#provider();
    const decrypted = transaction && decrypt(this.config.TOKEN_PEPPERS, PURPOSE, Buffer.from(transaction, 'base64url'));
    const expected = decrypted ? (JSON.parse(decrypted.toString()) as OidcTransaction) : undefined;
    if (!expected || expected.endsAtMs < Date.now()) throw new OidcSignInError('expired');
    const claims = await this.#claims(provider, search, expected);
    const user = await this.people.byIdentity({
      issuer: claims.iss,
      subject: claims.sub,
      // An address that the other service has not checked could be anybody's.
      email: claims['email_verified'] === true && typeof claims['email'] === 'string' ? claims['email'] : null,
      name: typeof claims['name'] === 'string' ? claims['name'] : null,
      mayCreate: this.config.OIDC_CREATE_USERS,
    });
    if (!user) throw new OidcSignInError('unknown');
    return user;
  }

  async #claims(provider: oidc.Configuration, search: string, expected: OidcTransaction): Promise<oidc.IDToken> {
    try {
      const tokens = await oidc.authorizationCodeGrant(provider, new URL(`${this.#redirectUri}${search}`), {
        pkceCodeVerifier: expected.verifier,
        expectedState: expected.state,
        expectedNonce: expected.nonce,
        idTokenExpected: true,
      });
      const claims = tokens.claims();
      // Most services tell the e-mail address in the ID token only when asked to; the other place has it always.
      if (claims?.['email'] === undefined && claims && provider.serverMetadata().userinfo_endpoint)
        return { ...(await oidc.fetchUserInfo(provider, tokens.access_token, claims.sub)), ...claims };
      if (claims) return claims;
    } catch (error) {
      if (isNetworkFault(error)) throw this.#unavailable(error);
      // Its code names the check that failed; the message could quote what was sent.
      this.logger.info({ code: (error as { code?: unknown }).code }, 'a sign-in from elsewhere was refused');
    }
    throw new OidcSignInError('refused');
  }

  #provider(): Promise<oidc.Configuration> {
    const { OIDC_ISSUER: issuer, OIDC_CLIENT_ID: id, OIDC_CLIENT_SECRET: secret } = this.config;
    if (!issuer || !id) throw notFound('other sign-in service');
    const server = new URL(issuer);
    this.#discovered ??= oidc
      .discovery(server, id, secret, undefined, {
        timeout: 5,
        execute: server.protocol === 'http:' ? [oidc.allowInsecureRequests] : [],
      })
      .catch((error: unknown) => {
        this.#discovered = undefined;
        throw this.#unavailable(error);
      });
    return this.#discovered;
  }

  #unavailable(error: unknown): ApiError {
    this.logger.warn({ reason: (error as Error).message }, 'the other sign-in service does not answer');
    return unavailable(
      'The other sign-in service does not answer at this moment. Try again, or sign in with a password.',
    );
  }

  get #redirectUri(): string {
    return new URL(`${OIDC_PATH}/callback`, this.config.PUBLIC_URL).href;
  }
}

const FAILURES = {
  expired: 'This sign-in was not begun here, or took too long.',
  refused: 'The other sign-in service did not confirm who you are. Begin again.',
  unknown: 'Nobody here belongs to that sign-in. Ask an administrator to add you.',
};

/** `sign_in_failed`, with the cause as a word that the sign-in page has a sentence for. */
export class OidcSignInError extends ApiError {
  constructor(readonly why: keyof typeof FAILURES) {
    super('sign_in_failed', FAILURES[why]);
  }
}

function isNetworkFault(error: unknown): boolean {
  if (error instanceof TypeError && error.cause !== undefined) return true;
  return error instanceof oidc.ClientError && (error.code === 'OAUTH_TIMEOUT' || error.cause instanceof TypeError);
}
