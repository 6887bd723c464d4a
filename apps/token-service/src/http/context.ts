import { AsyncLocalStorage } from 'node:async_hooks';
import type { Actor } from '../authorization/index.js';

/** The request being handled, for audit events and logs. */
export interface RequestContext {
  readonly requestId: string;
  readonly ip: string | null;
  readonly userAgent: string | null;
  /** The caller over gRPC; absent over HTTP. */
  readonly rpcCaller?: 'gateway' | 'jobs' | 'token';
  /** Set once the caller is known. */
  actor?: Actor;
}

export const requestContext = new AsyncLocalStorage<RequestContext>();
