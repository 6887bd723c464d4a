import { timingSafeEqual } from 'node:crypto';
import { type Metadata, status } from '@grpc/grpc-js';
import { FIRST_PARTY_CALLER, FIRST_PARTY_SCHEME } from '@latchkey/contracts';
import { type CanActivate, type ExecutionContext, Inject, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { RpcException } from '@nestjs/microservices';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { VerificationService } from '../tokens/verification.service.js';

/** Who calls the gRPC door. */
export type RpcCaller = { type: 'first-party' } | { type: 'token'; tokenId: string };

const FIRST_PARTY_ONLY = 'latchkey:first-party-only';
/** Only services that know RPC_SECRET may call. */
export const FirstPartyOnly = () => SetMetadata(FIRST_PARTY_ONLY, true);

const callers = new WeakMap<Metadata, RpcCaller>();

/** Who makes the call that this metadata came with; the guard has let it in. */
export function callerOf(metadata: Metadata): RpcCaller {
  const caller = callers.get(metadata);
  if (!caller) throw new Error('no caller is known: the controller lacks RpcCallerGuard');
  return caller;
}

/** Names a caller for good: in leases, in usage batches, and in the keys derived for it. */
export const callerName = (caller: RpcCaller): string =>
  caller.type === 'first-party' ? FIRST_PARTY_CALLER : `token:${caller.tokenId}`;

const SCOPE = 'tokens:verify';

/** No caller, no answer: RPC_SECRET, or a Bearer token that holds tokens:verify. */
@Injectable()
export class RpcCallerGuard implements CanActivate {
  readonly #secret: Buffer;

  constructor(
    @Inject(CONFIG) config: Pick<TokenServiceConfig, 'RPC_SECRET'>,
    private readonly verification: VerificationService,
    private readonly reflector: Reflector,
  ) {
    this.#secret = Buffer.from(config.RPC_SECRET);
  }

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const metadata = context.switchToRpc().getContext<Metadata>();
    const firstPartyOnly = this.reflector.getAllAndOverride<boolean>(FIRST_PARTY_ONLY, [
      context.getHandler(),
      context.getClass(),
    ]);
    const peer = context.getArgByIndex<{ getPeer(): string }>(2).getPeer();
    const caller = await this.#identify(metadata, addressOf(peer));
    if (firstPartyOnly && caller.type !== 'first-party')
      throw refuse(status.PERMISSION_DENIED, "this call is for Latchkey's own services");
    callers.set(metadata, caller);
    return true;
  }

  async #identify(metadata: Metadata, ip: string): Promise<RpcCaller> {
    const given = metadata.get('authorization');
    if (given.length !== 1) throw refuse(status.UNAUTHENTICATED, 'send one `authorization`: `Bearer <token>`');
    const [scheme = '', credentials = '', more] = String(given[0]).split(' ');
    if (more !== undefined) throw refuse(status.UNAUTHENTICATED, 'authorization must be a scheme and one word');
    if (scheme.toLowerCase() === FIRST_PARTY_SCHEME.toLowerCase()) {
      if (this.#isSecret(credentials)) return { type: 'first-party' };
    } else if (scheme.toLowerCase() === 'bearer') {
      const verification = await this.verification.verify(credentials, { scopes: [SCOPE], ip });
      if (verification.allowed) return { type: 'token', tokenId: verification.known.facts.id };
      if (verification.reason === 'address_not_allowed')
        throw refuse(status.PERMISSION_DENIED, 'the token may not be used from this address');
      if (verification.reason === 'insufficient_scope')
        throw refuse(status.PERMISSION_DENIED, `the token does not hold ${SCOPE}`);
    }
    throw refuse(status.UNAUTHENTICATED, 'the caller is not accepted');
  }

  #isSecret(presented: string): boolean {
    const bytes = Buffer.from(presented);
    return bytes.length === this.#secret.length && timingSafeEqual(bytes, this.#secret);
  }
}

/** grpc-js tells a peer as `address:port`, IPv6 in brackets. */
const addressOf = (peer: string): string => peer.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');

export const refuse = (code: status, message: string): RpcException => new RpcException({ code, message });
