import type { Cursor, Invalidation } from '@latchkey/contracts';
import { type Clock, type Moment, Timekeeper } from '@latchkey/verifier';
import type { InvalidationStore, LeasesReading, LogReading, StoreConnection } from './types.js';

/** Most invalidations of one answer; a verifier that is further behind empties its memory, which is cheaper. */
export const RESPONSE_INVALIDATIONS_MAX = 10_000;

export interface LogResult {
  readonly cursor: Cursor;
  readonly history: string;
  readonly reset: boolean;
  readonly invalidations: readonly Invalidation[];
}

export interface LogDeps {
  readonly store: InvalidationStore;
  readonly newId: () => string;
  readonly clock: Clock;
  /** Longest lease that may have been granted before a backup was restored. */
  readonly leaseMs: number;
}

/** The invalidation log as verifiers read it. */
export class InvalidationLog {
  readonly #deps: LogDeps;
  readonly #time: Timekeeper;
  #history = '';
  #sent: Moment;

  constructor(deps: LogDeps) {
    this.#deps = deps;
    this.#time = new Timekeeper(deps.clock);
    this.#sent = this.#time.note();
  }

  /** The history that leases were read in last, for whatever purpose; empty: a start of the server was seen since. */
  get history(): string {
    return this.#history;
  }

  /** How long ago the reading was sent that showed it, in milliseconds, by the clock that makes that longest. */
  get historyAgeMs(): number {
    return this.#time.elapsedMs(this.#sent);
  }

  /**
   * What a verifier with this cursor has not applied yet, and its next cursor, from one snapshot. The next cursor is
   * the snapshot's oldest running transaction: all of lower ids have ended and were read, and those of higher ids that
   * were read already will be read again.
   * It does not lie beyond the transaction of the lease itself, whose nonce will vouch for it: a backup may be taken
   * between the two, and what is put back from it knows the nonce, but nothing that was read later.
   * @param here the connection on which the verifier's lease has just been committed
   * @param witness whether the verifier is believed when its cursor says that this log has forgotten something
   * @param renewal transaction id of the lease; null: none goes with it, and nobody will go by the cursor
   */
  async since(
    here: StoreConnection,
    cursor: Cursor | null,
    witness: boolean,
    renewal: string | null,
  ): Promise<LogResult> {
    let reading = await here.readLog(cursor?.xid ?? null, RESPONSE_INVALIDATIONS_MAX);
    const isBeyond = cursor?.log === reading.log && BigInt(cursor.xid) > BigInt(reading.xmin);
    if (!reading.isCurrent || (isBeyond && witness)) {
      this.note({ isCurrent: false, history: '' }, this.sending());
      await this.#follow(here, isBeyond && witness ? reading.log : null);
      reading = await here.readLog(cursor?.xid ?? null, RESPONSE_INVALIDATIONS_MAX);
    }
    const xmin = BigInt(reading.xmin);
    const past = renewal === null ? xmin : BigInt(renewal) + 1n;
    const next: Cursor = { log: reading.log, xid: String(xmin < past ? xmin : past) };
    const { history } = reading;
    return isContinued(cursor, reading)
      ? { cursor: next, history, reset: false, invalidations: reading.invalidations }
      : { cursor: next, history, reset: true, invalidations: [] };
  }

  /** A verifier has shown that the log has forgotten what it once knew: another one is begun, for all verifiers. */
  async forgotten(here: StoreConnection): Promise<void> {
    const { log } = await here.readLog(null, 0);
    await this.#follow(here, log);
  }

  /**
   * All leases, and the log they stand beside, read from a server that has just shown that it is the primary, after a
   * restored backup, another server or a mere start has been noticed.
   * @param here a connection that is at hand; default: one of its own
   */
  leases(here?: StoreConnection): Promise<LeasesReading> {
    return here ? this.#leases(here) : this.#deps.store.onOneConnection((one) => this.#leases(one));
  }

  /**
   * The same, and which of some invalidations the log holds: after a backup was put back, neither missing rows nor cursors
   * say anything about a change that was forgotten.
   * @param idsIn the invalidations to look for, by the history that was found
   */
  leasesAndKnown(
    idsIn: (history: string) => readonly string[],
  ): Promise<{ reading: LeasesReading; known: ReadonlySet<string> }> {
    return this.#deps.store.onOneConnection(async (here) => {
      const reading = await this.#leases(here);
      const ids = idsIn(reading.history);
      return { reading, known: new Set(ids.length > 0 ? await here.knownInvalidations(ids) : []) };
    });
  }

  async #leases(here: StoreConnection): Promise<LeasesReading> {
    await here.prove();
    let sent = this.sending();
    let reading = await here.readLeases();
    this.note(reading, sent);
    if (!reading.isCurrent) {
      await this.#follow(here, null);
      sent = this.sending();
      reading = await here.readLeases();
      this.note(reading, sent);
    }
    return reading;
  }

  /** To be asked before leases are read elsewhere, for `note`. */
  sending(): Moment {
    return this.#time.note();
  }

  /**
   * Leases have been read, be it not by this. A reading says nothing any more once one that was sent later has answered.
   * @param sent when it was, at the latest
   */
  note({ isCurrent, history }: Pick<LeasesReading, 'isCurrent' | 'history'>, sent: Moment): void {
    if (sent.monotonicMs < this.#sent.monotonicMs) return;
    this.#sent = sent;
    this.#history = isCurrent ? history : '';
  }

  #follow(here: StoreConnection, forgetful: string | null): Promise<void> {
    const { newId, leaseMs } = this.#deps;
    return here.followDatabase(newId(), newId(), leaseMs, forgetful);
  }
}

/** Whether the log holds all that the verifier needs to go on from its cursor. */
function isContinued(cursor: Cursor | null, reading: LogReading): boolean {
  if (cursor === null || cursor.log !== reading.log) return false;
  const xid = BigInt(cursor.xid);
  return (
    xid > BigInt(reading.removedTo) &&
    xid <= BigInt(reading.xmin) &&
    reading.invalidations.length <= RESPONSE_INVALIDATIONS_MAX
  );
}
