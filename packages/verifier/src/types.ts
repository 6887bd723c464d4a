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
  /** The project requested; otherwise a project token's own; otherwise empty. */
  readonly project: string;
  /** The token's scopes in that project, or outside any. */
  readonly scopes: readonly string[];
  /** Unix milliseconds; 0: never. */
  readonly expiresAtMs: number;
  /** Its own and its ancestors' limits: a use counts in each, and each must allow it. */
  readonly rates: readonly RpcRateBucket[];
}

/** What a request needs besides a valid token. */
export interface Requirement {
  /** All are required. */
  readonly scopes: readonly string[];
  /** The project that the request is about. */
  readonly project?: string;
  /** The caller's address, compared with the token's allowed addresses when given. */
  readonly ip?: string;
}

/** The result of a check, as data: checks never throw. */
export type Verdict =
  | { readonly allowed: true; readonly principal: Principal }
  | { readonly allowed: false; readonly reason: DenialReason; readonly tokenId?: string };

/** A source of time and timers, such as `systemClock` of packages/runtime. */
export interface Clock {
  monotonicMs(): number;
  uptimeMs(): number;
  wallMs(): number;
  after(ms: number, callback: () => void): () => void;
}

/**
 * The authority refused a lease; this proves nothing about any token. `identity`: the lease of this claim was ended, or
 * its id belongs to another caller, so the verifier must make a new claim. `later`: this caller gets no lease for now.
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

/** The authority, over RPC. A rejection means that it is unavailable and proves nothing about a token. */
export interface TokenSource {
  lookup(hash: string): Promise<LookupResponse>;
  /** Rejects with RenewalRefused when the authority responded and refused a lease. */
  renew(request: RenewRequest): Promise<RenewResponse>;
  release(request: ReleaseRequest): Promise<void>;
}

/** The verifier, for a feed that must identify its subscriber. */
export interface FeedSubscriber {
  /** Assigned by the authority; undefined without a lease. It can change. */
  readonly id: string | undefined;
  /** How far the invalidation log has been applied; null: none of it. */
  readonly cursor: Cursor | null;
  /** Messages were left out: requests a renewal, which brings their invalidations. At most one a second. */
  renew(): void;
}

/**
 * Called with a message of the feed.
 * @param renew acknowledgements do not reach every replica of the authority now: renew until a cursor past the message has
 * been sent, which confirms as well
 */
export type OnFeedMessage = (text: string, renew?: boolean) => void;

/**
 * Delivers invalidations as text and takes acknowledgements: over Redis, or over a stream of the authority. It can lose,
 * repeat, reorder, delay or forge messages.
 */
export interface Feed {
  /** Calls `onMessage` with every message. Returns a function that ends the subscription. */
  subscribe(onMessage: OnFeedMessage, subscriber: FeedSubscriber): () => void;
  /** Best effort; a rejection is counted and otherwise ignored. */
  acknowledge(text: string): Promise<void>;
  /** A renewal was accepted: the verifier has an id, which can be a new one. */
  onRenewed?(): void;
}

/** An open connection of an admitted request (SSE, WebSocket, a long response). */
export interface Stream {
  /** Called at most once. `reason` is `unavailable` when the lease expired and the token could not be checked again. */
  cut(reason: DenialReason): void;
}
