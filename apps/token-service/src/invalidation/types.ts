import type { Cursor, Invalidation, VerifierCaller } from '@latchkey/contracts';
import type { Clock } from '@latchkey/runtime';

/**
 * How far the clocks of two machines may drift apart: whoever judges a lease waits this share of it longer than its
 * holder would.
 */
export const DRIFT = 0.2;

/** Milliseconds after which a lease of this length has certainly lapsed, by anybody's clock. */
export const lapsedAfterMs = (leaseMs: number): number => Math.ceil(leaseMs * (1 + DRIFT));

/** The part of the clock that judging others needs. Wall time plays no part in it. */
export type WaitClock = Pick<Clock, 'monotonicMs' | 'wallMs' | 'after'>;

/** Who calls: the first-party services together, or one token. */
export interface LeaseCaller {
  /** Names the caller for good, `first-party` or `token:<id>`. */
  readonly id: string;
  readonly firstParty: boolean;
  /** Who answers for the caller: `first-party`, or the owner of the token that the calling one stems from. */
  readonly holder: string;
  /** The calling token, its ancestors and its owner; absent for first-party services. */
  readonly token?: { readonly id: string; readonly ancestors: readonly string[]; readonly ownerId: string };
}

/** `callerId` of leases for those whose rows a database may have forgotten. */
export const UNOWNED = 'nobody';

/** A lease as it stands in its row. */
export interface LeaseRow {
  readonly verifierId: string;
  readonly name: string;
  /** Names the caller for good: `LeaseCaller.id`. */
  readonly callerId: string;
  /** The caller as receipts tell it. */
  readonly caller: VerifierCaller;
  readonly holder: string;
  /** What the acknowledgement key is derived from; null: this verifier has none. Goes to nobody. */
  readonly keySalt: Uint8Array | null;
  /** Transaction id of the last renewal, decimal: it never repeats. */
  readonly renewal: string;
  /** The cursor sent with that renewal. */
  readonly cursor: Cursor | null;
  /** The longest lease that any answer to this verifier may have granted. */
  readonly leaseMs: number;
  /** The verifier has given its lease back. */
  readonly released: boolean;
  /** The lease is not renewed any more. */
  readonly ended: boolean;
}

export interface LeaseRequest {
  /** By which a verifier is known: the SHA-256 of its claim, or the id that a verifier of version 0.1 brings along. */
  readonly claim: { readonly hash: Uint8Array } | { readonly ownId: string };
  readonly name: string;
  readonly version: string;
  readonly caller: LeaseCaller;
  readonly cursor: Cursor | null;
  readonly leaseMs: number;
  /** Most leases of the caller's holder; null: no bound. */
  readonly leasesMax: number | null;
  /** Of the row, if it is a new one. */
  readonly fresh: { readonly verifierId: string; readonly keySalt: Uint8Array };
  /** As given to this verifier with the last renewal that it has an answer to; null: it has none. */
  readonly presented: string | null;
  /** What the one that it is given with this renewal is made from. */
  readonly nonce: string;
}

export const LEASE_REFUSALS = ['foreign', 'ended', 'too_many', 'suspended', 'waiting'] as const;
export type LeaseRefusal = (typeof LEASE_REFUSALS)[number];

export type LeaseTaken =
  | {
      readonly outcome: 'taken';
      readonly verifierId: string;
      readonly keySalt: Uint8Array;
      /**
       * Whether the row knew the nonce presented. False: this history has forgotten a renewal that was answered; null:
       * it was not known, which a row that lapsed or a request that comes late explains as well. In both cases the cursor
       * sent is not kept.
       */
      readonly remembered: boolean | null;
      /** Given to the verifier. */
      readonly nonce: string;
      /** Transaction id of this renewal. */
      readonly renewal: string;
    }
  | { readonly outcome: LeaseRefusal };

/** The log as one statement, in one snapshot, found it. */
export interface LogHead {
  readonly log: string;
  /**
   * The log, and the start of its server as last noted: only within one history is a renewal, seen twice, the same one.
   * Transaction ids come again after a promotion or a restore.
   */
  readonly history: string;
  /**
   * Whether it was begun in this database and its server has not started since: otherwise a backup may have been put
   * back, or another server have taken over, and nobody has noticed yet.
   */
  readonly isCurrent: boolean;
}

/** What one statement, in one snapshot, found in the log. */
export interface LogReading extends LogHead {
  /** The oldest transaction that was running; every lower one has ended. */
  readonly xmin: string;
  /** The highest transaction id whose rows have been removed. */
  readonly removedTo: string;
  /** Invalidations from the cursor on, at most one more than asked for. */
  readonly invalidations: readonly Invalidation[];
}

/**
 * The database was put back to a state from before the change: what was committed has never been, and must be done again.
 */
export class ChangeForgotten extends Error {
  override name = 'ChangeForgotten';
  constructor() {
    super('the database was put back to a state from before this change');
  }
}

/** All leases, with the log that they are read beside. */
export interface LeasesReading extends LogHead {
  readonly leases: readonly LeaseRow[];
}

/**
 * One connection, hence one server: what is read here after a commit made here is what that server knows. Every method is
 * a transaction of its own; one that writes has committed, without a warning, when it resolves.
 */
export interface StoreConnection {
  /** Commits something, which only the primary can: what is read next is read from it. */
  prove(): Promise<void>;
  /** The same caller and claim get the same row again; an id is never handed out twice. */
  takeLease(request: LeaseRequest): Promise<LeaseTaken>;
  /** Reads the log from `fromXid` on (null: no invalidations), at most `limit` rows. */
  readLog(fromXid: string | null, limit: number): Promise<LogReading>;
  /**
   * Brings the log up to where this database stands, unless somebody else just has: a new log, or a mere start of the
   * server noted. Leases of before may be running although their rows are forgotten, so a lease of `leaseMs`, or of the
   * longest ever granted, is put down in nobody's hands for whoever confirms to wait for.
   * @param forgetful the log, if a verifier has shown that it has forgotten what it once knew. A log that was begun since
   *   the server started goes on: nothing can have been put back meanwhile
   */
  followDatabase(log: string, nobody: string, leaseMs: number, forgetful: string | null): Promise<void>;
  readLeases(): Promise<LeasesReading>;
  /** Those of these ids whose invalidations stand in the log. */
  knownInvalidations(ids: readonly string[]): Promise<readonly string[]>;
  /** Deletes the row of a lapsed lease if it still carries this renewal. */
  deleteLease(verifierId: string, renewal: string): Promise<boolean>;
}

/** What the protocol needs of PostgreSQL. Every other method is a transaction of its own, committed when it resolves. */
export interface InvalidationStore {
  onOneConnection<T>(work: (here: StoreConnection) => Promise<T>): Promise<T>;
  /** Marks the row as released if it is of this caller and claim; it stays until it would have lapsed. */
  releaseLease(verifierId: string, caller: string, claimHash: Uint8Array): Promise<boolean>;
  /** A confirmation has waited this lease out. Answers until when its holder gets none, if that has just begun. */
  strike(row: Pick<LeaseRow, 'verifierId' | 'renewal' | 'holder'>): Promise<Date | null>;
  /** Notes how long each verifier took to confirm last, in milliseconds. */
  noteConfirmations(took: ReadonlyMap<string, number>): Promise<void>;
  /** Says that renewals name these keys, by id; answers for how many milliseconds they have, in the same order. */
  announceKeys(ids: readonly string[]): Promise<number[]>;
  /** Removes at most `limit` invalidations that are older than `keepMs`; answers how many. */
  pruneLog(keepMs: number, limit: number): Promise<number>;
}

/** What the protocol needs of Redis, which may lose, repeat, reorder, delay or forge anything. */
export interface Bus {
  /** Best effort; a rejection is counted and otherwise ignored. */
  publish(text: string): Promise<void>;
  /** Calls back with every acknowledgement; the answer ends the subscription. */
  subscribe(onAcknowledgement: (text: string) => void): () => void;
  /** Whether acknowledgements do not come at this moment, as far as is known: then rows are what confirms. */
  isUnavailable?(): boolean;
}
