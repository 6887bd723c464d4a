import { type Metadata, status } from '@grpc/grpc-js';
import { FIRST_PARTY_CALLER, FIRST_PARTY_SCHEME } from '@latchkey/contracts';
import { newId, secretMatcher } from '@latchkey/runtime';
import { type CanActivate, type ExecutionContext, Inject, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { RpcException } from '@nestjs/microservices';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import type { RequestContext } from '../http/index.js';
import { VerificationService } from '../tokens/verification.service.js';

/** Who calls over gRPC: a gateway, jobs, or the holder of a token with tokens:verify. */
export type RpcCaller = { type: 'gateway' } | { type: 'jobs' } | { type: 'token'; tokenId: string };
export type RpcCallerType = RpcCaller['type'];

const CALLABLE_BY = 'latchkey:callable-by';
/** Who may call this handler. One that does not say is closed to everyone. */
export const CallableBy = (...types: RpcCallerType[]) => SetMetadata(CALLABLE_BY, types);

interface Call {
  caller: RpcCaller;
  context: RequestContext;
  /**
   * Whether the caller would be let in again at this moment, for calls that stay open; it is not counted as a use.
   * Rejects when that cannot be found out.
   */
  callerNow: () => Promise<CallerNow>;
}

/** Until when, in Unix milliseconds; 0: without end. */
export type CallerNow = { readonly allowed: false } | { readonly allowed: true; readonly expiresAtMs: number };

const calls = new WeakMap<Metadata, Call>();

/** The call that this metadata came with; undefined when the guard has not let it in. */
export const callOf = (metadata: Metadata): Call | undefined => calls.get(metadata);

/** Who makes the call that this metadata came with; the guard has let it in. */
export function callerOf(metadata: Metadata): RpcCaller {
  const call = callOf(metadata);
  if (!call) throw new Error('no caller is known: RpcCallerGuard has not seen this call');
  return call.caller;
}

/** Names a caller for good: in leases, in usage batches, and in the keys derived for it. */
export const callerName = (caller: RpcCaller): string =>
  caller.type === 'token' ? `token:${caller.tokenId}` : FIRST_PARTY_CALLER;

const SCOPE = 'tokens:verify';
/** Under this name the calls of a token are counted as its uses. */
const ROUTE = 'rpc';
const REFUSED: Record<RpcCallerType, string> = {
  gateway: 'this call is not for gateways',
  jobs: 'this call is not for jobs',
  token: "this call is for Latchkey's own services",
};

/** Finds out who calls over gRPC, and lets in only those whom the handler names. */
@Injectable()
export class RpcCallerGuard implements CanActivate {
  /** A secret may be of several kinds, while the deprecated RPC_SECRET stands for them. */
  readonly #services: readonly { caller: RpcCaller; isSecret: (presented: string) => boolean }[];

  constructor(
    @Inject(CONFIG) config: Pick<TokenServiceConfig, 'GATEWAY_RPC_SECRET' | 'JOBS_RPC_SECRET'>,
    private readonly verification: VerificationService,
    private readonly reflector: Reflector,
  ) {
    this.#services = [
      { caller: { type: 'gateway' }, isSecret: secretMatcher(config.GATEWAY_RPC_SECRET) },
      { caller: { type: 'jobs' }, isSecret: secretMatcher(config.JOBS_RPC_SECRET) },
    ];
  }

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (context.getType() !== 'rpc') return true; // HTTP has a guard of its own
    const allowed = this.reflector.get<RpcCallerType[] | undefined>(CALLABLE_BY, context.getHandler()) ?? [];
    const metadata = context.switchToRpc().getContext<Metadata>();
    const call = context.getArgByIndex<{ getPeer(): string; pause?(): void }>(2);
    // Of a stream nothing more is read before its caller is known; its handler goes on.
    call.pause?.();
    const ip = addressOf(call.getPeer());
    const callers = await this.#identify(metadata, ip);
    const caller = callers.find(({ type }) => allowed.includes(type));
    if (!caller) throw refuse(status.PERMISSION_DENIED, REFUSED[callers[0]!.type]);
    calls.set(metadata, {
      caller,
      context: { requestId: newId(), ip, userAgent: null, rpcCaller: caller.type },
      callerNow: () => this.#callerNow(caller, metadata, ip),
    });
    return true;
  }

  async #callerNow(caller: RpcCaller, metadata: Metadata, ip: string): Promise<CallerNow> {
    if (caller.type !== 'token') return { allowed: true, expiresAtMs: 0 };
    const [, credentials = ''] = String(metadata.get('authorization')[0]).split(' ');
    const verification = await this.verification.verify(credentials, { scopes: [SCOPE], ip });
    if (!verification.allowed) return { allowed: false };
    return { allowed: true, expiresAtMs: verification.known.facts.expiresAtMs };
  }

  /** @returns who it may be, at least one */
  async #identify(metadata: Metadata, ip: string): Promise<RpcCaller[]> {
    const given = metadata.get('authorization');
    if (given.length !== 1) throw refuse(status.UNAUTHENTICATED, 'send one `authorization`: `Bearer <token>`');
    const [scheme = '', credentials = '', more] = String(given[0]).split(' ');
    if (more !== undefined) throw refuse(status.UNAUTHENTICATED, 'authorization must be a scheme and one word');
    if (scheme.toLowerCase() === FIRST_PARTY_SCHEME.toLowerCase()) {
      const callers = this.#services.filter(({ isSecret }) => isSecret(credentials)).map(({ caller }) => caller);
      if (callers.length > 0) return callers;
    } else if (scheme.toLowerCase() === 'bearer') {
      const verification = await this.verification.use(credentials, { scopes: [SCOPE], ip }, { route: ROUTE, ip });
      if (verification.allowed) return [{ type: 'token', tokenId: verification.known.facts.id }];
      if (verification.reason === 'address_not_allowed')
        throw refuse(status.PERMISSION_DENIED, 'the token may not be used from this address');
      if (verification.reason === 'rate_limited')
        throw refuse(status.RESOURCE_EXHAUSTED, 'the token has been used as often as its rate limit allows');
      if (verification.reason === 'insufficient_scope')
        throw refuse(status.PERMISSION_DENIED, `the token does not hold ${SCOPE}`);
    }
    throw refuse(status.UNAUTHENTICATED, 'the caller is not accepted');
  }
}

/** grpc-js tells a peer as `address:port`, IPv6 in brackets. */
const addressOf = (peer: string): string => peer.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');

export const refuse = (code: status, message: string): RpcException => new RpcException({ code, message });
