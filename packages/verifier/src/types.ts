import type {
  Cursor,
  DenialReason,
  LookupResponse,
  ReleaseRequest,
  RenewRequest,
  RenewResponse,
  RpcRateBucket,
} from '@latchkey/contracts';

/** Who acts in a request that was allowed. */
export interface Principal {
  readonly tokenId: string;
  readonly kind: 'pat' | 'prj';
  readonly ownerType: 'user' | 'project';
  readonly ownerId: string;
  /** The project asked for; otherwise a project token's own; otherwise empty. */
  readonly project: string;
  /** What the token may do in that project, or outside any. */
  readonly scopes: readonly string[];
  /** Unix milliseconds; 0: never. */
  readonly expiresAtMs: number;
  /** Limits that bear on it, its own and its ancestors': a use counts in each, and each must allow it. */
  readonly rates: readonly RpcRateBucket[];
}

/** What a request needs besides a good token. */
export interface Requirement {
  /** All of them are needed. */
  readonly scopes: readonly string[];
  /** The project that the request is about. */
  readonly project?: string;
  /** The caller's address, checked against the token's allowed ones when given. */
  readonly ip?: string;
}

/** Outcomes are data; a verdict never throws. */
export type Verdict =
  | { readonly allowed: true; readonly principal: Principal }
  | { readonly allowed: false; readonly reason: DenialReason; readonly tokenId?: string };

/** Where elapsed time comes from; `systemClock` of packages/runtime is one. */
export interface Clock {
  monotonicMs(): number;
  uptimeMs(): number;
  wallMs(): number;
  after(ms: number, callback: () => void): () => void;
}

/**
 * The authority refuses a lease; says nothing about any token. `identity`: the lease of this claim was ended, or its id
 * is another's, so the verifier must take a new claim. `later`: this caller gets no lease for now.
 */
export class RenewalRefused extends Error {
  override name = 'RenewalRefused';
  constructor(
    readonly reason: 'identity' | 'later',
    message: string,
  ) {
    super(message);
  }
}

/** The authority, asked by RPC. Rejections mean "away": they never say anything about a token. */
export interface TokenSource {
  lookup(hash: string): Promise<LookupResponse>;
  /** Rejects with RenewalRefused when the authority answered and grants nothing. */
  renew(request: RenewRequest): Promise<RenewResponse>;
  release(request: ReleaseRequest): Promise<void>;
}

/** The verifier as a feed sees it that must say whose it is. */
export interface FeedHolder {
  /** As the authority handed it out; undefined without a lease. It may change. */
  readonly id: string | undefined;
  /** How far the invalidation log has been applied; null: not at all. */
  readonly cursor: Cursor | null;
  /** Messages were left out: hurries on a renewal, which brings what they said. At most once a second. */
  renew(): void;
}

/**
 * Called with a message of the feed.
 * @param renew acknowledgements reach not every replica of the authority now: renewals until a cursor past the message
 * has been sent confirm as well
 */
export type OnFeedMessage = (text: string, renew?: boolean) => void;

/**
 * Invalidations as text, and acknowledgements back: over Redis, or over a stream of the authority's. It may lose, repeat,
 * reorder, delay or forge anything.
 */
export interface Feed {
  /** Called with every message; the answer ends the subscription. */
  subscribe(onMessage: OnFeedMessage, holder: FeedHolder): () => void;
  /** Best effort; a rejection is counted and otherwise ignored. */
  acknowledge(text: string): Promise<void>;
  /** A renewal has been taken: the verifier has an id, perhaps another one. */
  onRenewed?(): void;
}

/** An open connection of an admitted request (SSE, WebSocket, a long answer). */
export interface Stream {
  /** Called at most once. `reason` is `unavailable` when the lease lapsed and the token could not be checked again. */
  cut(reason: DenialReason): void;
}
