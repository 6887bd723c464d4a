import type { Cursor, Invalidation, VerifierCaller } from '@latchkey/contracts';
import type { Clock } from '@latchkey/runtime';

/**
 * How far the clocks of two machines may drift apart, as a fraction: a lease counts as lapsed only after this much longer
 * than its verifier uses it.
 */
export const DRIFT = 0.2;

/** Milliseconds after which a lease of this length has certainly lapsed, by any clock. */
export const lapsedAfterMs = (leaseMs: number): number => Math.ceil(leaseMs * (1 + DRIFT));

/** The part of the clock that waiting for leases needs. Wall time decides nothing there. */
export type WaitClock = Pick<Clock, 'monotonicMs' | 'wallMs' | 'after'>;

/** Who calls: the first-party services together, or one token. */
export interface LeaseCaller {
  /** Permanent name of the caller, `first-party` or `token:<id>`. */
  readonly id: string;
  readonly firstParty: boolean;
  /** Whose limits apply: `first-party`, or the owner of the calling token's root ancestor. */
  readonly holder: string;
  /** The calling token, its ancestors and its owner; absent for first-party services. */
  readonly token?: { readonly id: string; readonly ancestors: readonly string[]; readonly ownerId: string };
}

/** `callerId` of leases that stand for verifiers whose rows a restored database may have lost. */
export const UNOWNED = 'nobody';

/** A lease as stored. */
export interface LeaseRow {
  readonly verifierId: string;
  readonly name: string;
  /** Permanent name of the caller: `LeaseCaller.id`. */
  readonly callerId: string;
  /** The caller as in receipts. */
  readonly caller: VerifierCaller;
  readonly holder: string;
  /** What the acknowledgement key is derived from; null: this verifier has none. Never leaves this process. */
  readonly keySalt: Uint8Array | null;
  /** Transaction id of the last renewal, decimal: it never repeats. */
  readonly renewal: string;
  /** The cursor sent with that renewal. */
  readonly cursor: Cursor | null;
  /** The longest lease that any response can have granted to this verifier, in milliseconds. */
  readonly leaseMs: number;
  /** The verifier has released its lease. */
  readonly released: boolean;
  /** The lease is not renewed any more. */
  readonly ended: boolean;
}

export interface LeaseRequest {
  /** Identifies a verifier: the SHA-256 of its claim, or the id that a verifier of version 0.1 chooses. */
  readonly claim: { readonly hash: Uint8Array } | { readonly ownId: string };
  readonly name: string;
  readonly version: string;
  /** Of a gateway's routes; null: none. */
  readonly routesHash: string | null;
  readonly caller: LeaseCaller;
  readonly cursor: Cursor | null;
  readonly leaseMs: number;
  /** Most leases of the caller's holder; null: no bound. */
  readonly leasesMax: number | null;
  /** For the row, if it is a new one. */
  readonly fresh: { readonly verifierId: string; readonly keySalt: Uint8Array };
  /** The nonce of the last renewal whose response this verifier has received; null: none. */
  readonly presented: string | null;
  /** What the nonce of this renewal is made from. */
  readonly nonce: string;
}

export const LEASE_REJECTIONS = ['foreign', 'ended', 'too_many', 'suspended', 'waiting'] as const;
export type LeaseRejection = (typeof LEASE_REJECTIONS)[number];

export type LeaseTaken =
  | {
      readonly outcome: 'taken';
      readonly verifierId: string;
      readonly keySalt: Uint8Array;
      /**
       * Whether the row contained the presented nonce. False: this history has lost a renewal whose response was sent; null:
       * it did not, which a lapsed row or a late request explains as well. In both cases the cursor sent is not
       * stored.
       */
      readonly remembered: boolean | null;
      /** For the response to the verifier. */
      readonly nonce: string;
      /** Transaction id of this renewal. */
      readonly renewal: string;
    }
  | { readonly outcome: LeaseRejection };

/** The log as read by one statement, in one snapshot. */
export interface LogHead {
  readonly log: string;
  /**
   * The log, and the start of its server as last recorded: only within one history does the same renewal id mean the same
   * renewal. Transaction ids repeat after a promotion or a restore.
   */
  readonly history: string;
  /**
   * Whether it was begun in this database and its server has not started since: otherwise a backup may have been restored,
   * or another server have taken over, which is not recorded yet.
   */
  readonly isCurrent: boolean;
}

/** What one statement, in one snapshot, read from the log. */
export interface LogReading extends LogHead {
  /** The oldest transaction that was running; every lower one has ended. */
  readonly xmin: string;
  /** The highest transaction id whose rows have been removed. */
  readonly removedTo: string;
  /** Invalidations from the cursor on, at most one more than asked for. */
  readonly invalidations: readonly Invalidation[];
}

/**
 * The database was restored to a state from before the change: the commit is lost, and the change must be repeated.
 */
export class ChangeForgotten extends Error {
  override name = 'ChangeForgotten';
  constructor() {
    super('the database was restored to a state from before this change');
  }
}

/** All leases, and the log read with them. */
export interface LeasesReading extends LogHead {
  readonly leases: readonly LeaseRow[];
}

/**
 * One connection, hence one server: a read here after a commit here comes from the server that committed. Every method is a
 * transaction of its own; one that writes has committed, without a warning, when it resolves.
 */
export interface StoreConnection {
  /** Commits something, which only the primary can: the next read comes from it. */
  prove(): Promise<void>;
  /** The same caller and claim get the same row again; an id is never assigned twice. */
  takeLease(request: LeaseRequest): Promise<LeaseTaken>;
  /** Reads the log from `fromXid` on (null: no invalidations), at most `limit` rows. */
  readLog(fromXid: string | null, limit: number): Promise<LogReading>;
  /**
   * Records that this is another database, by beginning a new log, or that its server has started, unless another process
   * has just done so. Earlier leases can still be in use although their rows are lost, so an unowned lease of `leaseMs`, or
   * of the longest ever granted, is inserted for confirmations to wait for.
   * @param log id of the new log
   * @param unownedId verifier id of the unowned lease
   * @param forgetful the log, if a verifier has shown that it has lost what it once contained. A log that was begun since
   *   the server started continues: nothing can have been restored meanwhile
   */
  followDatabase(log: string, unownedId: string, leaseMs: number, forgetful: string | null): Promise<void>;
  readLeases(): Promise<LeasesReading>;
  /** Those of these ids whose invalidations are in the log. */
  knownInvalidations(ids: readonly string[]): Promise<readonly string[]>;
  /** Deletes the row of a lapsed lease if it still has this renewal. */
  deleteLease(verifierId: string, renewal: string): Promise<boolean>;
}

/** What the protocol needs of PostgreSQL. Every other method is a transaction of its own, committed when it resolves. */
export interface InvalidationStore {
  onOneConnection<T>(work: (here: StoreConnection) => Promise<T>): Promise<T>;
  /** Marks the row as released if it is of this caller and claim; the row remains until it would have lapsed. */
  releaseLease(verifierId: string, caller: string, claimHash: Uint8Array): Promise<boolean>;
  /** A confirmation had to wait until this lease lapsed. @returns until when its holder is suspended, if that has just begun */
  strike(row: Pick<LeaseRow, 'verifierId' | 'renewal' | 'holder'>): Promise<Date | null>;
  /** Records how long each verifier took to confirm last, in milliseconds. */
  noteConfirmations(took: ReadonlyMap<string, number>): Promise<void>;
  /** Records that renewals contain these keys, by id. @returns for how many milliseconds they have, in the same order */
  announceKeys(ids: readonly string[]): Promise<number[]>;
  /** Removes at most `limit` invalidations that are older than `keepMs` milliseconds. @returns how many */
  pruneLog(keepMs: number, limit: number): Promise<number>;
}

/** What the protocol needs of Redis, which can lose, repeat, reorder, delay or forge anything. */
export interface Bus {
  /** Best effort; a rejection is counted and otherwise ignored. */
  publish(text: string): Promise<void>;
  /** Calls back with every acknowledgement. @returns ends the subscription */
  subscribe(onAcknowledgement: (text: string) => void): () => void;
  /** Whether acknowledgements cannot be received now, as far as is known: then rows confirm. */
  isUnavailable?(): boolean;
}
