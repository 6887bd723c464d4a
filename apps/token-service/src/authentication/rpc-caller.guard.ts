import { type Metadata, status } from '@grpc/grpc-js';
import { FIRST_PARTY_SCHEME } from '@latchkey/contracts';
import { liveMatcher, MALFORMED, newId, readAuthorization } from '@latchkey/runtime';
import { type CanActivate, type ExecutionContext, Inject, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { CALLABLE_BY, type CallerNow, type RpcCaller, type RpcCallerType, refuse, setCall } from '../rpc/index.js';
import { VerificationService } from '../verification/index.js';

const SCOPE = 'tokens:verify';
const OWN_SCHEME = FIRST_PARTY_SCHEME.toLowerCase();
/** The route under which the calls of a token are counted as its uses. */
const ROUTE = 'rpc';
const REFUSED: Record<RpcCallerType, string> = {
  gateway: 'this call is not for gateways',
  jobs: 'this call is not for jobs',
  token: "this call is for Latchkey's own services",
};

/** Authenticates the caller over gRPC, and admits only the types that the handler names. */
@Injectable()
export class RpcCallerGuard implements CanActivate {
  /** One secret can match several, while the deprecated RPC_SECRET replaces them. */
  readonly #services: readonly { caller: RpcCaller; isSecret: (presented: string) => boolean }[];

  constructor(
    @Inject(CONFIG) config: Pick<TokenServiceConfig, 'GATEWAY_RPC_SECRET' | 'JOBS_RPC_SECRET'>,
    private readonly verification: VerificationService,
    private readonly reflector: Reflector,
  ) {
    this.#services = [
      { caller: { type: 'gateway' }, isSecret: liveMatcher(() => config.GATEWAY_RPC_SECRET) },
      { caller: { type: 'jobs' }, isSecret: liveMatcher(() => config.JOBS_RPC_SECRET) },
    ];
  }

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (context.getType() !== 'rpc') return true; // HTTP has a guard of its own
    const allowed = this.reflector.get<RpcCallerType[] | undefined>(CALLABLE_BY, context.getHandler()) ?? [];
    const metadata = context.switchToRpc().getContext<Metadata>();
    const call = context.getArgByIndex<{ getPeer(): string; pause?(): void }>(2);
    // A stream is paused until its caller is known; its handler resumes it.
    call.pause?.();
    const ip = addressOf(call.getPeer());
    const callers = await this.#identify(metadata, ip);
    const caller = callers.find(({ type }) => allowed.includes(type));
    if (!caller) throw refuse(status.PERMISSION_DENIED, REFUSED[callers[0]!.type]);
    setCall(metadata, {
      caller,
      context: { requestId: newId(), ip, userAgent: null, rpcCaller: caller.type },
      callerNow: () => this.#callerNow(caller, metadata, ip),
    });
    return true;
  }

  /**
   * Whether this is a caller of one of these types, as far as that can be decided without waiting: by its secret, or from
   * memory. Undefined, and nothing counted: only `canActivate` knows.
   * @returns counts the caller's use
   */
  recall(metadata: Metadata, peer: string, allowed: readonly RpcCallerType[]): (() => void) | undefined {
    const given = metadata.get('authorization');
    if (given.length !== 1) return undefined;
    const authorization = String(given[0]);
    const own = readAuthorization(OWN_SCHEME, authorization);
    if (typeof own === 'string') {
      const isAllowed = this.#services.some(({ caller, isSecret }) => allowed.includes(caller.type) && isSecret(own));
      return isAllowed ? () => undefined : undefined;
    }
    const secret = readAuthorization('bearer', authorization);
    if (typeof secret !== 'string' || !allowed.includes('token')) return undefined;
    const ip = addressOf(peer);
    const verdict = this.verification.recall(secret, { scopes: [SCOPE], ip });
    return verdict?.allowed ? () => this.verification.count(verdict, { route: ROUTE, ip }) : undefined;
  }

  async #callerNow(caller: RpcCaller, metadata: Metadata, ip: string): Promise<CallerNow> {
    if (caller.type !== 'token') return { allowed: true, expiresAtMs: 0 };
    const secret = readAuthorization('bearer', authorizationIn(metadata));
    if (typeof secret !== 'string') return { allowed: false };
    const verification = await this.verification.verify(secret, { scopes: [SCOPE], ip });
    if (!verification.allowed) {
      if (verification.reason === 'restored') throw refuseRestored();
      return { allowed: false };
    }
    return { allowed: true, expiresAtMs: verification.known.snapshot.expiresAtMs };
  }

  /** @returns the possible callers, at least one @throws RpcException */
  async #identify(metadata: Metadata, ip: string): Promise<RpcCaller[]> {
    const authorization = authorizationIn(metadata);
    const own = readAuthorization(OWN_SCHEME, authorization);
    const secret = readAuthorization('bearer', authorization);
    if (own === MALFORMED) throw refuse(status.UNAUTHENTICATED, 'authorization must be a scheme and one value');
    if (own !== undefined) {
      const callers = this.#services.filter(({ isSecret }) => isSecret(own)).map(({ caller }) => caller);
      if (callers.length > 0) return callers;
    } else if (typeof secret === 'string') {
      const requirement = { scopes: [SCOPE], ip };
      const verification = await this.verification.use(secret, requirement, { route: ROUTE, ip });
      if (verification.allowed) {
        this.verification.remember(secret, requirement);
        return [{ type: 'token', tokenId: verification.known.snapshot.id }];
      }
      if (verification.reason === 'address_not_allowed')
        throw refuse(status.PERMISSION_DENIED, 'the token may not be used from this address');
      if (verification.reason === 'rate_limited')
        throw refuse(status.RESOURCE_EXHAUSTED, 'the token has exceeded its rate limit');
      if (verification.reason === 'restored') throw refuseRestored();
      if (verification.reason === 'insufficient_scope')
        throw refuse(status.PERMISSION_DENIED, `the token does not have the scope ${SCOPE}`);
    }
    throw refuse(status.UNAUTHENTICATED, 'the caller is not accepted');
  }
}

const refuseRestored = () =>
  refuse(status.UNAVAILABLE, 'the token was issued before a restore of the database that is not settled yet');

function authorizationIn(metadata: Metadata): string {
  const given = metadata.get('authorization');
  if (given.length !== 1) throw refuse(status.UNAUTHENTICATED, 'send one `authorization`: `Bearer <token>`');
  return String(given[0]);
}

/** grpc-js formats a peer as `address:port`, IPv6 in brackets. */
const addressOf = (peer: string): string => peer.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
