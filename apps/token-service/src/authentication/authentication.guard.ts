import { ENDPOINTS, type Endpoint, type EndpointName, MANAGEMENT_SCOPES } from '@latchkey/contracts';
import { type ExecutionContext, Inject, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { AuthGuard } from '@nestjs/passport';
import { SessionsService } from '../accounts/index.js';
import type { Actor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { ApiError, ENDPOINT_METADATA, forbidden, type LatchkeyRequest, lacksScope } from '../http/index.js';
import { BearerStrategy } from './bearer.strategy.js';

const SAFE_METHODS = ['GET', 'HEAD', 'OPTIONS'];
const NO_CREDENTIALS = 'Sign in, or send a token as `Authorization: Bearer`.';

/**
 * Authenticates the caller by a Bearer token, or the cookie of a signed-in person, and refuses all others. A handler that
 * does not declare who may call refuses every request.
 */
@Injectable()
export class AuthenticationGuard extends AuthGuard() {
  constructor(
    @Inject(Reflector) private readonly reflector: Reflector,
    @Inject(SessionsService) private readonly sessions: SessionsService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(BearerStrategy) strategy: BearerStrategy,
  ) {
    super({ defaultStrategy: strategy.registeredAs, session: false });
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    if (context.getType() !== 'http') return true; // gRPC has a guard of its own
    const request = context.switchToHttp().getRequest<LatchkeyRequest & { user?: Actor }>();
    const name = this.reflector.get<EndpointName | 'public' | 'any-token' | undefined>(
      ENDPOINT_METADATA,
      context.getHandler(),
    );
    if (name === undefined) throw forbidden('This path is closed: its handler declares no access.');
    if (name === 'public') return true;
    const endpoint: Pick<Endpoint, 'scope'> = name === 'any-token' ? { scope: 'self' } : ENDPOINTS[name];
    if (endpoint.scope === 'none') {
      // A page of another site must not sign anyone in either; an exposed secret can be reported from anywhere.
      if (name !== 'revokeExposed') this.#mustBeSameOrigin(request);
      return true;
    }
    refuseTokensOutsideHeader(request);
    const bearerOnly = endpoint.scope === 'self';
    if (request.headers.authorization !== undefined) {
      await super.canActivate(context);
      request.latchkey.actor = request.user!;
    } else if (bearerOnly)
      throw new ApiError('unauthenticated', 'Send a token as `Authorization: Bearer`.', { bearer: true });
    else request.latchkey.actor = await this.#signedIn(request);
    mustHoldSomewhere(request.latchkey.actor!, endpoint.scope);
    return true;
  }

  /** The stock guard turns every failure into 401 and loses the challenge (RFC 6750 section 3.1). */
  override handleRequest<T>(error: unknown, actor: T | false, _info: unknown, _context: unknown, status?: number): T {
    if (error) throw error;
    if (actor) return actor;
    if (status === 400)
      throw new ApiError('invalid_request', 'The Authorization header must be `Bearer` and one token.', {
        bearer: true,
      });
    throw new ApiError('unauthenticated', NO_CREDENTIALS, { bearer: true });
  }

  async #signedIn(request: LatchkeyRequest): Promise<Actor> {
    const value = request.sessionCookie;
    const actor = value ? await this.sessions.actorBy(value) : null;
    if (!actor) throw new ApiError('unauthenticated', NO_CREDENTIALS, { bearer: true });
    this.#mustBeSameOrigin(request);
    return actor;
  }

  /** Browsers send the origin of every state-changing request; those from another origin must not use a cookie. */
  #mustBeSameOrigin(request: LatchkeyRequest): void {
    if (SAFE_METHODS.includes(request.method)) return;
    const { origin, 'sec-fetch-site': site } = request.headers;
    const own = new URL(this.config.PUBLIC_URL).origin;
    const isForeign =
      origin !== undefined ? origin !== own : site !== undefined && site !== 'same-origin' && site !== 'none';
    if (isForeign)
      throw new ApiError(
        'cross_site',
        `This request came from another site. Requests with a cookie must come from ${own}.`,
      );
  }
}

/** RFC 6750 section 2: a token is sent in one way, and here only in the header. */
function refuseTokensOutsideHeader(request: LatchkeyRequest): void {
  const headers = request.raw.rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'authorization');
  const refuse = (detail: string) => new ApiError('invalid_request', detail, { bearer: true });
  if (headers.length > 1) throw refuse('Send one Authorization header.');
  const isIn = (part: unknown) => typeof part === 'object' && part !== null && Object.hasOwn(part, 'access_token');
  if (isIn(request.query))
    throw refuse('A token must not be in the query string, which logs record. Send it as `Authorization: Bearer`.');
  if (isIn(request.body)) throw refuse('A token must not be in the body. Send it as `Authorization: Bearer`.');
}

/** Scopes that no project role has are not about projects: they count only when held outside of them. */
const BEYOND_PROJECTS = new Set(MANAGEMENT_SCOPES.filter((s) => s.projectRoles.length === 0).map(({ name }) => name));

/** A request whose scope the caller holds nowhere is refused before its input is parsed; the services check where. */
function mustHoldSomewhere({ type, rights }: Actor, scope: string): void {
  if (scope === 'self' || scope === 'signed-in') return;
  if (scope === 'person') {
    if (type === 'user') return;
    throw forbidden('Only a person who is signed in may do this; a token cannot, whatever scopes it has.');
  }
  if (BEYOND_PROJECTS.has(scope) ? rights.holds(scope) : rights.holdsSomewhere(scope)) return;
  if (type === 'token') throw lacksScope([scope]);
  throw forbidden(`This requires the scope ${scope}, which your role does not have. Ask an administrator.`);
}
