import type { Metadata, status } from '@grpc/grpc-js';
import { FIRST_PARTY_CALLER } from '@latchkey/contracts';
import { SetMetadata } from '@nestjs/common';
import { RpcException } from '@nestjs/microservices';
import type { RequestContext } from '../http/index.js';

/** Who calls over gRPC: a gateway, jobs, or the holder of a token with tokens:verify. */
export type RpcCaller = { type: 'gateway' } | { type: 'jobs' } | { type: 'token'; tokenId: string };
export type RpcCallerType = RpcCaller['type'];

export const CALLABLE_BY = 'latchkey:callable-by';
/** Who may call this handler. A handler without this decorator refuses every call. */
export const CallableBy = (...types: RpcCallerType[]) => SetMetadata(CALLABLE_BY, types);

export interface Call {
  caller: RpcCaller;
  context: RequestContext;
  /**
   * Whether the caller is still accepted, for calls that stay open; not counted as a use. Rejects when the check fails.
   */
  callerNow: () => Promise<CallerNow>;
}

/** `expiresAtMs` in Unix milliseconds; 0: never. */
export type CallerNow = { readonly allowed: false } | { readonly allowed: true; readonly expiresAtMs: number };

const calls = new WeakMap<Metadata, Call>();

/** Sets the call that this metadata came with. For the guard only. */
export const setCall = (metadata: Metadata, call: Call): void => void calls.set(metadata, call);

/** The call that this metadata came with; undefined when the guard has not accepted it. */
export const callOf = (metadata: Metadata): Call | undefined => calls.get(metadata);

/** The caller of the call that this metadata came with. @throws Error when the guard has not accepted it */
export function callerOf(metadata: Metadata): RpcCaller {
  const call = callOf(metadata);
  if (!call) throw new Error('no caller is known: RpcCallerGuard has not handled this call');
  return call.caller;
}

/** The permanent name of a caller: in leases, in usage batches, and in the keys derived for it. */
export const callerName = (caller: RpcCaller): string =>
  caller.type === 'token' ? `token:${caller.tokenId}` : FIRST_PARTY_CALLER;

export const refuse = (code: status, message: string): RpcException => new RpcException({ code, message });
