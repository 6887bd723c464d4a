import type { Cursor, Invalidation } from '@latchkey/contracts';
import { type Clock, type Moment, Timekeeper } from '@latchkey/verifier';
import type { InvalidationStore, LeasesReading, LogReading, StoreConnection } from './types.js';

/** Most invalidations of one response; a verifier that is further behind empties its memory, which is cheaper. */
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
  /** Longest lease that may have been granted before a backup was restored, in milliseconds. */
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

  /** The history in which leases were last read, for any purpose; empty: a start of the server was seen since. */
  get history(): string {
    return this.#history;
  }

  /** Milliseconds since the read that returned it was sent, by the clock that makes that longest. */
  get historyAgeMs(): number {
    return this.#time.elapsedMs(this.#sent);
  }

  /**
   * What a verifier with this cursor has not applied yet, and its next cursor, from one snapshot. The next cursor is
   * the snapshot's oldest running transaction: all with lower ids have ended and were read, and those with higher ids that
   * were read already will be read again.
   * It is never beyond the transaction of the lease itself, whose nonce will prove it: a backup can be taken between the
   * two, and a database restored from it contains the nonce, but nothing that was read later.
   * @param here the connection on which the verifier's lease has just been committed
   * @param witness whether the verifier is trusted when its cursor shows that this log has lost something
   * @param renewal transaction id of the lease; null: there is none, and no verifier will use the cursor
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

  /** A verifier has shown that the log has lost what it once contained: a new one is begun, for all verifiers. */
  async forgotten(here: StoreConnection): Promise<void> {
    const { log } = await here.readLog(null, 0);
    await this.#follow(here, log);
  }

  /**
   * All leases, and their log, read from a server that has just proved that it is the primary; a restored backup, another
   * server or a mere start is recorded first.
   * @param here the connection to use; default: one of its own
   */
  leases(here?: StoreConnection): Promise<LeasesReading> {
    return here ? this.#leases(here) : this.#deps.store.onOneConnection((one) => this.#leases(one));
  }

  /**
   * The same, and which of some invalidations the log contains: after a backup was restored, neither missing rows nor
   * cursors prove anything about a change that was lost.
   * @param idsIn returns the invalidations to find, given the history that was read
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

  /** The current moment, for `note`: to be called before leases are read elsewhere. */
  sending(): Moment {
    return this.#time.note();
  }

  /**
   * Records a reading of the leases, also one not made by this object. It is ignored if one that was sent later has already
   * been recorded.
   * @param sent a moment no later than when it was sent
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

/** Whether the log contains all that the verifier needs to continue from its cursor. */
function isContinued(cursor: Cursor | null, reading: LogReading): boolean {
  if (cursor === null || cursor.log !== reading.log) return false;
  const xid = BigInt(cursor.xid);
  return (
    xid > BigInt(reading.removedTo) &&
    xid <= BigInt(reading.xmin) &&
    reading.invalidations.length <= RESPONSE_INVALIDATIONS_MAX
  );
}
