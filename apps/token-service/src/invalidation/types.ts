import type { Cursor, Invalidation } from '@latchkey/contracts';
import type { Clock } from '@latchkey/runtime';

/**
 * How far the clocks of two machines may drift apart: whoever judges a lease waits this share of it longer than its
 * holder would.
 */
export const DRIFT = 0.2;

/** Milliseconds after which a lease of this length has certainly lapsed, by anybody's clock. */
export const lapsedAfterMs = (leaseMs: number): number => Math.ceil(leaseMs * (1 + DRIFT));

/** The part of the clock that judging others needs. Wall time plays no part in it. */
export type JudgeClock = Pick<Clock, 'monotonicMs' | 'wallMs' | 'after'>;

/** A lease as it stands in its row. */
export interface LeaseRow {
  readonly verifierId: string;
  readonly name: string;
  /** Transaction id of the last renewal, decimal: it never repeats. */
  readonly renewal: string;
  /** The cursor sent with that renewal. */
  readonly cursor: Cursor | null;
  /** The longest lease that any answer to this verifier may have granted. */
  readonly leaseMs: number;
}

export interface LeaseRequest {
  readonly verifierId: string;
  readonly name: string;
  /** Who renews: a verifier id belongs to the caller that first renewed it. */
  readonly caller: string;
  readonly cursor: Cursor | null;
  readonly leaseMs: number;
  /** Most leases of this caller; null: no bound. */
  readonly callerLeasesMax: number | null;
}

/** What one statement, in one snapshot, found in the log. */
export interface LogReading {
  readonly log: string;
  /** False when the rows stem from another database than the log was begun in: a backup was restored. */
  readonly sameDatabase: boolean;
  /** The oldest transaction that was running; every lower one has ended. */
  readonly xmin: string;
  /** The highest transaction id whose rows have been removed. */
  readonly removedTo: string;
  /** Invalidations from the cursor on, at most one more than asked for. */
  readonly invalidations: readonly Invalidation[];
}

/** What the protocol needs of PostgreSQL. Every method is a transaction of its own, committed when it resolves. */
export interface InvalidationStore {
  takeLease(request: LeaseRequest): Promise<'taken' | 'foreign' | 'too_many'>;
  /** Reads the log from `fromXid` on (null: no invalidations), at most `limit` rows. */
  readLog(fromXid: string | null, limit: number): Promise<LogReading>;
  /**
   * Begins a new log after a restored backup, unless somebody else just has. Leases that were taken after the backup
   * are gone with their rows, so a lease of `leaseMs` in nobody's hands is put down for whoever confirms to wait for.
   */
  renewLog(log: string, nobody: string, leaseMs: number): Promise<void>;
  /** All leases, with the log that they are read beside. */
  readLeases(): Promise<{ log: string; sameDatabase: boolean; leases: LeaseRow[] }>;
  /** Deletes the row if it still carries this renewal. */
  deleteLease(verifierId: string, renewal: string): Promise<boolean>;
  /** Deletes the row if it is this caller's. */
  releaseLease(verifierId: string, caller: string): Promise<boolean>;
  /** Removes at most `limit` invalidations that are older than `keepMs`; answers how many. */
  pruneLog(keepMs: number, limit: number): Promise<number>;
}

/** What the protocol needs of Redis, which may lose, repeat, reorder, delay or forge anything. */
export interface Bus {
  /** Best effort; a rejection is counted and otherwise ignored. */
  publish(text: string): Promise<void>;
  /** Calls back with every acknowledgement; the answer ends the subscription. */
  subscribe(onAcknowledgement: (text: string) => void): () => void;
}
