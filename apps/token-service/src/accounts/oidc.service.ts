import type { User } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import * as oidc from 'openid-client';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { ApiError, notFound, unavailable } from '../http/index.js';
import { PeppersService } from '../verification/index.js';
import { decrypt, encrypt } from './encrypted.js';
import { PeopleService } from './people.service.js';

export const OIDC_PATH = '/v1/session/oidc';
const PURPOSE = 'sign-in elsewhere';
/** How long a person has to sign in at the identity provider. */
export const OIDC_SECONDS = 600;

/** State of a sign-in in progress, encrypted in a cookie. */
interface OidcTransaction {
  state: string;
  nonce: string;
  verifier: string;
  endsAtMs: number;
}

/** Sign-in at an identity provider: OpenID Connect, authorization code flow with PKCE (RFC 7636), state and nonce. */
@Injectable()
export class OidcService {
  #discovered: Promise<oidc.Configuration> | undefined;

  constructor(
    private readonly people: PeopleService,
    private readonly peppers: PeppersService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** The identity provider for the sign-in page; null when none is configured. */
  get offer(): { name: string; url: string } | null {
    return this.config.OIDC_ISSUER ? { name: this.config.OIDC_NAME, url: OIDC_PATH } : null;
  }

  /** The URL to redirect the browser to, and the value of the transaction cookie. */
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
   * The person who signed in at the identity provider.
   * @param search the query of the redirect from the identity provider
   * @param transaction value of the cookie
   * @throws ApiError `sign_in_failed`; `unavailable` when the identity provider does not respond
   */
  async finish(search: string, transaction: string | undefined): Promise<User> {
    const provider = await this.#provider();
    const decrypted = transaction && decrypt(this.config.TOKEN_PEPPERS, PURPOSE, Buffer.from(transaction, 'base64url'));
    if (transaction && !decrypted) await this.peppers.mustLackNoneNow();
    const expected = decrypted ? (JSON.parse(decrypted.toString()) as OidcTransaction) : undefined;
    if (!expected || expected.endsAtMs < Date.now()) throw new OidcSignInError('expired');
    const claims = await this.#claims(provider, search, expected);
    const user = await this.people.byIdentity({
      issuer: claims.iss,
      subject: claims.sub,
      // An address that the provider has not verified could belong to anyone.
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
      // Many providers omit the email address from the ID token; the userinfo endpoint always has it.
      if (claims?.['email'] === undefined && claims && provider.serverMetadata().userinfo_endpoint)
        return { ...(await oidc.fetchUserInfo(provider, tokens.access_token, claims.sub)), ...claims };
      if (claims) return claims;
    } catch (error) {
      if (isNetworkFault(error)) throw this.#unavailable(error);
      // The code names the failed check; the message could contain what the provider sent.
      this.logger.info({ code: (error as { code?: unknown }).code }, 'a sign-in at the identity provider failed');
    }
    throw new OidcSignInError('refused');
  }

  #provider(): Promise<oidc.Configuration> {
    const { OIDC_ISSUER: issuer, OIDC_CLIENT_ID: id, OIDC_CLIENT_SECRET: secret } = this.config;
    if (!issuer || !id) throw notFound('identity provider');
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
    this.logger.warn({ reason: (error as Error).message }, 'the identity provider is unavailable');
    return unavailable('The identity provider does not respond. Try again, or sign in with a password.');
  }

  get #redirectUri(): string {
    return new URL(`${OIDC_PATH}/callback`, this.config.PUBLIC_URL).href;
  }
}

const FAILURES = {
  expired: 'This sign-in was not started here, or took too long.',
  refused: 'The identity provider did not confirm who you are. Start again.',
  unknown: 'Nobody here belongs to that sign-in. Ask an administrator to add you.',
};

/** `sign_in_failed`, with a cause that the sign-in page has a text for. */
export class OidcSignInError extends ApiError {
  constructor(readonly reason: keyof typeof FAILURES) {
    super('sign_in_failed', FAILURES[reason]);
  }
}

function isNetworkFault(error: unknown): boolean {
  if (error instanceof TypeError && error.cause !== undefined) return true;
  return error instanceof oidc.ClientError && (error.code === 'OAUTH_TIMEOUT' || error.cause instanceof TypeError);
}
