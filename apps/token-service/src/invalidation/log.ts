import type { Cursor, Invalidation } from '@latchkey/contracts';
import type { InvalidationStore, LogReading } from './types.js';

/** Most invalidations of one answer; a verifier that is further behind empties its memory, which is cheaper. */
export const ANSWER_INVALIDATIONS_MAX = 10_000;

export interface LogAnswer {
  readonly cursor: Cursor;
  readonly reset: boolean;
  readonly invalidations: readonly Invalidation[];
}

export interface LogParts {
  readonly store: InvalidationStore;
  readonly newId: () => string;
  /** Longest lease that may have been granted before a backup was restored. */
  readonly leaseMs: number;
}

/** The invalidation log as verifiers read it. */
export class InvalidationLog {
  readonly #parts: LogParts;

  constructor(parts: LogParts) {
    this.#parts = parts;
  }

  /**
   * What a verifier with this cursor has not applied yet, and its next cursor, from one snapshot. The next cursor is
   * the snapshot's oldest running transaction: all of lower ids have ended and were read, and those of higher ids that
   * were read already will be read again.
   */
  async since(cursor: Cursor | null): Promise<LogAnswer> {
    const { store, newId, leaseMs } = this.#parts;
    let reading = await store.readLog(cursor?.xid ?? null, ANSWER_INVALIDATIONS_MAX);
    if (!reading.sameDatabase) {
      await store.renewLog(newId(), newId(), leaseMs);
      reading = await store.readLog(null, ANSWER_INVALIDATIONS_MAX);
    }
    const next: Cursor = { log: reading.log, xid: reading.xmin };
    return isContinued(cursor, reading)
      ? { cursor: next, reset: false, invalidations: reading.invalidations }
      : { cursor: next, reset: true, invalidations: [] };
  }

  /** All leases, and the log they stand beside, after a restored backup has been noticed. */
  async leases(): ReturnType<InvalidationStore['readLeases']> {
    const { store, newId, leaseMs } = this.#parts;
    const reading = await store.readLeases();
    if (reading.sameDatabase) return reading;
    await store.renewLog(newId(), newId(), leaseMs);
    return store.readLeases();
  }
}

/** Whether the log holds all that the verifier needs to go on from its cursor. */
function isContinued(cursor: Cursor | null, reading: LogReading): boolean {
  if (cursor === null || cursor.log !== reading.log) return false;
  const xid = BigInt(cursor.xid);
  return (
    xid > BigInt(reading.removedTo) &&
    xid <= BigInt(reading.xmin) &&
    reading.invalidations.length <= ANSWER_INVALIDATIONS_MAX
  );
}
