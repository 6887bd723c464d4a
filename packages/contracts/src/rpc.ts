/**
 * The messages of `latchkey.proto` and `latchkey_internal.proto` in TypeScript: names in camelCase, int64 as
 * numbers, absent strings empty, absent messages null. A test of packages/runtime compares them, method by method and
 * field by field, with the types that proto-loader generates from the protos.
 */
export interface VerifyRequest {
  token: string;
  scopes: string[];
  project: string;
  ip: string;
  route: string;
  userAgent: string;
}

export interface VerifyResponse {
  allowed: boolean;
  denial: string;
  tokenId: string;
  owner: string;
  project: string;
  scopes: string[];
  expiresAt: string;
  requestId: string;
  retryAfterSeconds: number;
}

export interface RpcRateLimit {
  limit: number;
  windowSeconds: number;
}

/** A rate limit, and the key of its counter. */
export interface RpcRateBucket extends RpcRateLimit {
  /** Empty: the token's own id. */
  bucket: string;
}

export interface ProjectGrant {
  project: string;
  scopes: string[];
}

/** The snapshot of a token by which a verifier checks it from memory. */
export interface TokenSnapshot {
  id: string;
  kind: string;
  ownerType: string;
  ownerId: string;
  project: string;
  denial: string;
  expiresAtMs: number;
  scopes: string[];
  allProjects: boolean;
  grants: ProjectGrant[];
  ancestors: string[];
  allowedIps: string[];
  /** The strictest of `rates`, for verifiers of version 0.1. */
  rateLimit: RpcRateLimit | null;
  /** Its own and its ancestors'. Absent: the authority is of version 0.1 and sends only `rateLimit`. */
  rates?: readonly RpcRateBucket[];
}

export interface LookupResponse {
  known: boolean;
  token: TokenSnapshot | null;
  /** The invalidation log at the time of reading. Absent or empty: the authority is of version 0.1. */
  log?: string;
  /** Absent or empty: the caller needs none. */
  usageTicket?: Uint8Array;
}

export interface Cursor {
  log: string;
  xid: string;
}

export interface RpcInvalidation {
  id: string;
  kind: string;
  subject: string;
  cut: boolean;
  xid: string;
}

export interface RenewRequest {
  verifierId: string;
  name: string;
  cursor: Cursor | null;
  claim: string;
  version: string;
  /** Absent or empty: none. */
  nonce?: string;
  /** Likewise; 16 hexadecimal digits. */
  routesHash?: string;
}

export interface ReleaseRequest {
  verifierId: string;
  /** The claim of the lease. Without it nothing is released, since ids are not secret. */
  claim: string;
}

export interface RenewResponse {
  leaseMs: number;
  cursor: Cursor | null;
  reset: boolean;
  invalidations: RpcInvalidation[];
  ackKey: Uint8Array;
  feedKey: Uint8Array;
  verifierId: string;
  feedKeys: Uint8Array[];
  usageKey: Uint8Array;
  caller: string;
  nonce: string;
  history: string;
}

/** A message of a verifier on its stream: first its id and cursor, then acknowledgements. */
export interface WatchRequest {
  verifierId: string;
  cursor: Cursor | null;
  /** Empty in the first message. */
  acknowledgement: string;
}

export interface WatchResponse {
  /** A signed message of the feed, the same as over Redis; or empty. */
  message: string;
  /**
   * With a message: renew until a cursor past it has been sent, because acknowledgements do not reach every replica.
   * Alone: messages were left out, so renew at once.
   */
  renew: boolean;
  /** The server stops: open another stream, then end this one. */
  closing: boolean;
}

export interface BatchResponse {
  done: number;
  more: boolean;
}

export interface ReportUseRequest {
  tokenId: string;
  kind: string;
  ip: string;
}

export interface TakeLettersRequest {
  limit: number;
  keyIds: string[];
}

/** A password email, whose code is never stored in plain text. */
export interface Letter {
  id: string;
  kind: 'reset' | 'invitation';
  email: string;
  name: string;
  encryptedCode: Uint8Array;
  expiresAt: string;
}

/**
 * The additional authenticated data of a code's encryption: it cannot be decrypted with another address or in another
 * email.
 */
export const passwordEmailContext = ({ id, kind, email, expiresAt }: Omit<Letter, 'name' | 'encryptedCode'>): string =>
  JSON.stringify(['letter', id, kind, email, expiresAt]);

/** The service `latchkey.v1.Tokens`, method by method. */
export interface TokensMethods {
  verify: { request: VerifyRequest; response: VerifyResponse };
  verifyBatch: { request: { requests: VerifyRequest[] }; response: { responses: VerifyResponse[] } };
  lookup: { request: { hash: string }; response: LookupResponse };
  renew: { request: RenewRequest; response: RenewResponse };
  release: { request: ReleaseRequest; response: { released: boolean } };
  watch: { sent: WatchRequest; received: WatchResponse };
}

/** The service `latchkey.internal.v1.Maintenance`, method by method. */
export interface MaintenanceMethods {
  expireDue: { request: { limit: number }; response: BatchResponse };
  endOverlaps: { request: { limit: number }; response: BatchResponse };
  revokeIdle: { request: { limit: number }; response: BatchResponse };
  continueExposures: { request: { limit: number }; response: BatchResponse };
  sealAudit: { request: { limit: number }; response: BatchResponse };
  prune: { request: { limit: number }; response: BatchResponse };
  takeLetters: { request: TakeLettersRequest; response: { letters: Letter[] } };
  finishLetter: { request: { id: string }; response: { known: boolean } };
  reportUse: { request: ReportUseRequest; response: { recorded: boolean } };
}
