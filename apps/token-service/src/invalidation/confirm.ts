import {
  ACKNOWLEDGEMENT_LENGTH_MAX,
  acknowledgementKey,
  digestOf,
  type Effect,
  INVALIDATIONS_PER_EVENT_MAX,
  type Invalidation,
  type Pending,
  parseAcknowledgement,
  type Receipt,
  signInvalidations,
  type VerifierCaller,
  verifyAcknowledgement,
} from '@latchkey/contracts';
import type { FeedKeys } from './feed-keys.js';
import type { InvalidationLog } from './log.js';
import {
  type Bus,
  ChangeForgotten,
  type InvalidationStore,
  type LeaseRow,
  type LeasesReading,
  lapsedAfterMs,
  UNOWNED,
  type WaitClock,
} from './types.js';

/**
 * Delay after publishing until rows are read again and unconfirmed invalidations are published again; doubles up to two
 * seconds. Far longer than verifiers need: anything shorter would multiply the work of a system that is merely slow.
 */
const RESCAN_MS = 500;
const RESCAN_MS_MAX = 2_000;
/** The same while Redis is unavailable: verifiers on streams then confirm by their cursors, which they renew at once. */
const RESCAN_WITHOUT_BUS_MS = 50;
/** Leases remembered as counted; for a forgotten one the store is called again, which counts each lease once. */
const STRUCK_MAX = 1_000;
/**
 * Maximum age of the last reading of the database's history when a wait ends. Changes read it with their commit, and the
 * reaping of leases every second, so only an idle process, or one whose PostgreSQL does not respond, has to read it again.
 */
const NOTICED_WITHIN_MS = 1_000;
/** How much longer than the longest confirmation a caller waits, in milliseconds. */
export const EXTRA_WAIT_MS = 2_000;

export interface ConfirmOptions {
  /** Longest wait; the confirmation itself continues. Default: one lease, its drift allowance and two seconds. */
  readonly waitMs?: number | undefined;
  /** Called once with the receipt when all verifiers have confirmed, however long after the response. */
  readonly onEffective?: ((receipt: Receipt) => Promise<void>) | undefined;
  /** Leases as read directly after the commit, on its connection; default: read now, from a proven primary. */
  readonly reading?: LeasesReading | undefined;
}

export interface ConfirmationsDeps {
  readonly store: InvalidationStore;
  readonly log: InvalidationLog;
  readonly bus: Bus;
  readonly clock: WaitClock;
  readonly leaseMs: number;
  /** Acknowledgement keys are derived from it. */
  readonly eventsSecret: Uint8Array;
  readonly feedKeys: Pick<FeedKeys, 'signer'>;
  /** How long a restored data folder can go unnoticed while a wait ends, in milliseconds. Default 1,000. */
  readonly noticedWithinMs?: number;
  /** Confirmations had to wait until leases of this holder lapsed; it gets none until then. */
  readonly onSuspended?: (holder: string, until: Date) => void;
}

type By = Receipt['verifiers'][number]['by'];

/** One verifier that can have a stale result in memory. */
interface Holder {
  readonly row: LeaseRow;
  /** The key of its acknowledgements, once one has been received. */
  key?: Uint8Array | null;
  /** When the row had been read: its lease, whenever it began, lasts no longer than counted from here. */
  readonly sinceMs: number;
  /** Digests of the invalidations that it has not acknowledged. */
  readonly unacknowledged: Set<string>;
}

/** Why an acknowledgement was dropped. */
export const ACKNOWLEDGEMENT_DROPS = ['too_long', 'malformed', 'not_awaited', 'not_authentic'] as const;
type AcknowledgementDrop = (typeof ACKNOWLEDGEMENT_DROPS)[number];

/** One wait, until no verifier can have a stale result. */
interface Wait {
  readonly invalidations: readonly Invalidation[];
  readonly startedMs: number;
  readonly log: string;
  readonly history: string;
  /** The history that was last seen to contain the invalidations. */
  knownIn: string;
  /** The last scan has failed: the current history is unknown. */
  isHistoryUnknown: boolean;
  /** Digests of the invalidations, in that log. */
  readonly digests: readonly string[];
  readonly holders: Map<string, Holder>;
  readonly confirmed: Receipt['verifiers'];
  readonly finish: (receipt: Receipt) => void;
  readonly fail: (error: Error) => void;
  /** Returns what is pending to the caller. */
  giveUp: () => void;
  cancelTimer: () => void;
  /** When it was last published, and how long after that it is published again. */
  publishedMs: number;
  rescanMs: number;
}

export interface ConfirmationCounters {
  started: number;
  effective: number;
  published: number;
  publishFailed: number;
  looksFailed: number;
  receiptsFailed: number;
  strikes: number;
}

/**
 * Waits until no verifier can return a result from before a committed invalidation. Redis only makes it faster: each
 * verifier is waited for until its authenticated acknowledgement, the deletion or release of its row, a cursor past the
 * invalidation, or the expiry of its lease with the drift allowance, by this process's own clock.
 */
export class Confirmations {
  readonly #deps: ConfirmationsDeps;
  readonly #noticedWithinMs: number;
  readonly #waits = new Set<Wait>();
  readonly #byDigest = new Map<string, Set<Wait>>();
  /** How long each verifier took last, until `takeTimes` is called. */
  #took = new Map<string, number>();
  /** Leases recently counted against their holders: many confirmations wait for the same one. */
  readonly #struck = new Set<string>();
  /** The log as last read: used for publishing when the leases cannot be read. */
  #lastLog: string | undefined;
  #unsubscribe: (() => void) | undefined;
  /** The read of rows in flight, and the one queued behind it. */
  #reading: Promise<unknown> = Promise.resolve();
  #nextReading: ReturnType<InvalidationLog['leasesAndKnown']> | undefined;
  #stopped = false;
  /** Called with the time of each confirmation, in milliseconds. */
  onEffective: (elapsedMs: number) => void = () => undefined;
  readonly counters: ConfirmationCounters = {
    started: 0,
    effective: 0,
    published: 0,
    publishFailed: 0,
    looksFailed: 0,
    receiptsFailed: 0,
    strikes: 0,
  };
  /** Verifiers that confirmed, by caller type and by how. */
  readonly by: Record<VerifierCaller['type'], Record<By, number>> = { first_party: noneYet(), token: noneYet() };
  readonly acknowledgementsDropped: Record<AcknowledgementDrop, number> = {
    too_long: 0,
    malformed: 0,
    not_awaited: 0,
    not_authentic: 0,
  };

  constructor(deps: ConfirmationsDeps) {
    this.#deps = deps;
    this.#noticedWithinMs = deps.noticedWithinMs ?? NOTICED_WITHIN_MS;
  }

  get pending(): number {
    return this.#waits.size;
  }

  start(): void {
    this.#unsubscribe ??= this.#deps.bus.subscribe((text) => this.#onAcknowledgement(text));
  }

  /** Ends all waits; what was not confirmed is confirmed when its change is repeated. */
  stop(): void {
    this.#stopped = true;
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    for (const wait of this.#waits) {
      wait.cancelTimer();
      wait.giveUp();
    }
    this.#waits.clear();
    this.#byDigest.clear();
  }

  /** How long each verifier that has confirmed since the last call took, in milliseconds. */
  takeTimes(): ReadonlyMap<string, number> {
    const took = this.#took;
    this.#took = new Map();
    return took;
  }

  /**
   * Confirms invalidations whose transaction has been committed. They can be of any age: verifiers acknowledge again.
   * @throws ChangeForgotten when the database was restored to a state from before them
   * @throws what the store throws when it cannot read the leases; the invalidations are still published
   */
  async confirm(invalidations: readonly Invalidation[], options: ConfirmOptions = {}): Promise<Effect> {
    const { clock, leaseMs } = this.#deps;
    const { onEffective } = options;
    const waitMs = this.#stopped ? 0 : (options.waitMs ?? lapsedAfterMs(leaseMs) + EXTRA_WAIT_MS);
    this.counters.started++;
    const startedMs = clock.monotonicMs();
    let reading: LeasesReading;
    try {
      reading = options.reading?.isCurrent ? options.reading : await this.#readKnowing(invalidations);
    } catch (error) {
      // The log is most likely still the same: publishing is better than not.
      if (this.#lastLog !== undefined) this.#publish(invalidations, this.#lastLog);
      throw error;
    }
    this.#lastLog = reading.log;
    const { wait, finished } = this.#open(invalidations, startedMs, reading);
    if (onEffective) {
      // No caller waits until the receipt is stored: if that fails, a repeat confirms again.
      finished.then(onEffective).catch(() => this.counters.receiptsFailed++);
    }
    this.#publish(invalidations, wait.log);
    this.#finishOrSchedule(wait);
    const receipt = await Promise.race([finished, this.#timeout(wait, waitMs, finished)]);
    return receipt
      ? { effective: true, receipt, pending: [] }
      : { effective: false, receipt: null, pending: this.#pendingOf(wait) };
  }

  #open(
    invalidations: readonly Invalidation[],
    startedMs: number,
    reading: LeasesReading,
  ): { wait: Wait; finished: Promise<Receipt> } {
    const { promise: finished, resolve: finish, reject: fail } = Promise.withResolvers<Receipt>();
    const digests = invalidations.map((invalidation) => digestOf(reading.log, invalidation));
    const canBeStale = reading.leases.filter(({ released }) => !released);
    const readMs = this.#deps.clock.monotonicMs();
    const wait: Wait = {
      invalidations,
      startedMs,
      log: reading.log,
      history: reading.history,
      knownIn: reading.history,
      isHistoryUnknown: false,
      digests,
      holders: new Map(
        canBeStale.map((row) => [row.verifierId, { row, sinceMs: readMs, unacknowledged: new Set(digests) }]),
      ),
      confirmed: [],
      finish,
      fail,
      giveUp: () => undefined,
      cancelTimer: () => undefined,
      publishedMs: readMs,
      rescanMs: RESCAN_MS,
    };
    this.#waits.add(wait);
    for (const digest of digests) {
      const waits = this.#byDigest.get(digest);
      if (waits) waits.add(wait);
      else this.#byDigest.set(digest, new Set([wait]));
    }
    for (const { row } of [...wait.holders.values()]) {
      if (hasPassed(row, wait)) this.#confirmed(wait, row.verifierId, 'cursor');
    }
    return { wait, finished };
  }

  /** Resolves with undefined after `ms` or when the process stops, unless the confirmation finishes first. */
  #timeout(wait: Wait, ms: number, finished: Promise<Receipt>): Promise<undefined> {
    return new Promise((resolve) => {
      wait.giveUp = () => resolve(undefined);
      const cancel = this.#deps.clock.after(ms, wait.giveUp);
      finished.then(cancel, cancel);
    });
  }

  #publish(invalidations: readonly Invalidation[], log: string): void {
    const { bus, feedKeys } = this.#deps;
    for (let at = 0; at < invalidations.length; at += INVALIDATIONS_PER_EVENT_MAX) {
      const some = invalidations.slice(at, at + INVALIDATIONS_PER_EVENT_MAX);
      this.counters.published += some.length;
      const text = JSON.stringify(signInvalidations(feedKeys.signer, log, some));
      bus.publish(text).catch(() => this.counters.publishFailed++);
    }
  }

  #onAcknowledgement(text: string): void {
    const drop = this.#takeAcknowledgement(text);
    if (drop) this.acknowledgementsDropped[drop]++;
  }

  #takeAcknowledgement(text: string): AcknowledgementDrop | undefined {
    if (text.length > ACKNOWLEDGEMENT_LENGTH_MAX) return 'too_long';
    if (this.#waits.size === 0) return 'not_awaited'; // not parsed: flooding the channel costs next to nothing
    const event = parseAcknowledgement(text);
    if (!event) return 'malformed';
    const waits = new Set<Wait>();
    for (const digest of event.digests) for (const wait of this.#byDigest.get(digest) ?? []) waits.add(wait);
    const awaited = [...waits].filter((wait) => wait.holders.has(event.verifier));
    if (awaited.length === 0) return 'not_awaited';
    let drop: AcknowledgementDrop | undefined;
    for (const wait of awaited) {
      const holder = wait.holders.get(event.verifier)!;
      const { unacknowledged } = holder;
      // With the key of the row that this wait has read: the verifier of another row cannot acknowledge for it.
      holder.key ??= this.#keyOf(holder.row);
      const { key } = holder;
      if (!key || !verifyAcknowledgement(key, event)) {
        drop = 'not_authentic';
        continue;
      }
      for (const digest of event.digests) unacknowledged.delete(digest);
      if (unacknowledged.size > 0) continue;
      this.#confirmed(wait, event.verifier, 'ack');
      this.#finishOrSchedule(wait);
    }
    return drop;
  }

  #keyOf({ verifierId, callerId: caller, keySalt: salt }: LeaseRow): Uint8Array | null {
    return salt && acknowledgementKey(this.#deps.eventsSecret, { verifierId, caller, salt });
  }

  #confirmed(wait: Wait, verifierId: string, by: By): void {
    const holder = wait.holders.get(verifierId);
    if (!holder) return;
    wait.holders.delete(verifierId);
    const { name, caller } = holder.row;
    this.by[caller.type][by]++;
    const ms = round(this.#deps.clock.monotonicMs() - wait.startedMs);
    this.#took.set(verifierId, ms);
    wait.confirmed.push({ id: verifierId, name, caller, by, ms });
    if (by === 'lease' && caller.type === 'token' && !holder.row.ended) this.#strike(holder.row);
  }

  /** A third party confirmed only by the expiry of its lease: counted against its holder. */
  #strike(row: LeaseRow): void {
    const { store, onSuspended } = this.#deps;
    const which = `${row.verifierId} ${row.renewal}`;
    if (this.#struck.has(which)) return;
    if (this.#struck.size >= STRUCK_MAX) this.#struck.clear();
    this.#struck.add(which);
    store.strike(row).then(
      (until) => {
        this.counters.strikes++;
        if (until) onSuspended?.(row.holder, until);
      },
      () => this.counters.looksFailed++,
    );
  }

  /**
   * Finishes the wait when no verifier is left, or schedules the next scan.
   * @param atLeastMs shortest delay until that scan
   */
  #finishOrSchedule(wait: Wait, atLeastMs = 1): void {
    if (!this.#waits.has(wait)) return;
    const { clock, log } = this.#deps;
    wait.cancelTimer();
    // Confirmed by all, but the database may meanwhile have been restored to a state without the change.
    const isSeen = !wait.isHistoryUnknown && wait.knownIn === log.history && log.historyAgeMs <= this.#noticedWithinMs;
    const isDoubtful = wait.holders.size === 0 && !isSeen;
    if (wait.holders.size > 0 || isDoubtful) {
      const nowMs = clock.monotonicMs();
      const nextLapseMs = Math.min(...[...wait.holders.values()].map((holder) => lapseMs(holder) - nowMs));
      const rescanMs = isDoubtful ? 0 : this.#isUnavailable() ? RESCAN_WITHOUT_BUS_MS : wait.rescanMs;
      const delayMs = Math.max(atLeastMs, Math.min(rescanMs, nextLapseMs));
      wait.cancelTimer = clock.after(delayMs, () => void this.#scan(wait));
      return;
    }
    this.#forget(wait);
    this.counters.effective++;
    const elapsedMs = round(clock.monotonicMs() - wait.startedMs);
    this.onEffective(elapsedMs);
    wait.finish({
      confirmedAt: new Date(clock.wallMs()).toISOString(),
      elapsedMs,
      verifiers: wait.confirmed,
    });
  }

  #forget(wait: Wait): void {
    wait.cancelTimer();
    this.#waits.delete(wait);
    for (const digest of wait.digests) {
      const waits = this.#byDigest.get(digest);
      waits?.delete(wait);
      if (waits?.size === 0) this.#byDigest.delete(digest);
    }
  }

  /**
   * Finds what Redis has not delivered: deleted rows, cursors past the invalidations, lapsed leases; then publishes again.
   * A lapsed lease confirms once the database has shown that it still contains the change.
   */
  async #scan(wait: Wait): Promise<void> {
    const { clock } = this.#deps;
    const scannedMs = clock.monotonicMs();
    let reading: LeasesReading | undefined;
    try {
      const found = await this.#readTogether();
      reading = found.reading;
      wait.isHistoryUnknown = false;
      if (reading.history !== wait.knownIn) {
        if (!wait.invalidations.every(({ id }) => found.known.has(id))) {
          this.#forget(wait);
          wait.fail(new ChangeForgotten());
          return;
        }
        this.#adoptUnowned(wait, reading);
        wait.knownIn = reading.history;
      }
    } catch {
      wait.isHistoryUnknown = true;
      this.counters.looksFailed++;
    }
    if (reading) this.#confirmLapsed(wait, reading, scannedMs);
    const sinceMs = clock.monotonicMs() - wait.publishedMs;
    if (wait.holders.size > 0 && sinceMs >= wait.rescanMs) {
      wait.publishedMs += sinceMs;
      wait.rescanMs = Math.min(wait.rescanMs * 2, RESCAN_MS_MAX);
      this.#publish(wait.invalidations, wait.log);
    }
    this.#finishOrSchedule(wait, reading ? 1 : RESCAN_WITHOUT_BUS_MS);
  }

  /**
   * In another history a verifier may have looked up again what the invalidation had made stale, and acknowledged the
   * invalidation before or after that: each of them renews in this history, or lapses, before the unowned lease that was
   * inserted at the start of this history lapses.
   */
  #adoptUnowned(wait: Wait, { leases }: LeasesReading): void {
    const sinceMs = this.#deps.clock.monotonicMs();
    for (const row of leases)
      if (row.callerId === UNOWNED && !wait.holders.has(row.verifierId))
        wait.holders.set(row.verifierId, { row, sinceMs, unacknowledged: new Set(wait.digests) });
  }

  #confirmLapsed(wait: Wait, reading: LeasesReading, scannedMs: number): void {
    const { log, store } = this.#deps;
    const isSameHistory = reading.history === wait.history;
    for (const holder of [...wait.holders.values()]) {
      const { row } = holder;
      if (scannedMs < lapseMs(holder)) continue;
      this.#confirmed(wait, row.verifierId, 'lease');
      if (!isSameHistory) continue;
      // Observed for that long by this process: dead, unless it has been renewed since.
      store
        .onOneConnection(async (here) => {
          const { history } = await log.leases(here);
          if (history === wait.history) await here.deleteLease(row.verifierId, row.renewal);
        })
        .catch(() => this.counters.looksFailed++);
    }
    if (isSameHistory) this.#reapRows(wait, reading);
  }

  #isUnavailable(): boolean {
    return this.#deps.bus.isUnavailable?.() ?? false;
  }

  /** The leases, together with a log that contains these invalidations. @throws ChangeForgotten */
  async #readKnowing(invalidations: readonly Invalidation[]): Promise<LeasesReading> {
    const ids = invalidations.map(({ id }) => id);
    const { reading, known } = await this.#deps.log.leasesAndKnown(() => ids);
    if (!ids.every((id) => known.has(id))) throw new ChangeForgotten();
    return reading;
  }

  /**
   * The leases as read from now on, and which awaited invalidations another history contains. Waits that scan at the same
   * time share one read that begins after all of them, on one connection: while PostgreSQL does not respond, waits must not
   * take the connections that changes and checks need.
   */
  #readTogether(): ReturnType<InvalidationLog['leasesAndKnown']> {
    if (this.#nextReading) return this.#nextReading;
    const result = this.#reading.then(() => {
      this.#nextReading = undefined;
      return this.#deps.log.leasesAndKnown((history) =>
        [...this.#waits]
          .filter(({ knownIn }) => knownIn !== history)
          .flatMap((wait) => wait.invalidations.map(({ id }) => id)),
      );
    });
    this.#nextReading = result;
    this.#reading = result.catch(() => undefined);
    return result;
  }

  /**
   * A row that the verifier has released is marked as released. One that is missing, its id perhaps taken by another
   * caller since, was deleted by a process that observed its lease lapse. Rows of another history prove nothing:
   * transaction ids repeat there, and a missing row may never have existed.
   */
  #reapRows(wait: Wait, reading: LeasesReading): void {
    const rows = new Map(reading.leases.map((row) => [row.verifierId, row]));
    for (const { row } of [...wait.holders.values()]) {
      const now = rows.get(row.verifierId);
      if (!now || now.callerId !== row.callerId) this.#confirmed(wait, row.verifierId, 'lease');
      else if (now.released) this.#confirmed(wait, row.verifierId, 'released');
      else if (hasPassed(now, wait)) this.#confirmed(wait, row.verifierId, 'cursor');
    }
  }

  #pendingOf(wait: Wait): Pending {
    const nowMs = this.#deps.clock.monotonicMs();
    return [...wait.holders.values()].map((holder) => ({
      id: holder.row.verifierId,
      name: holder.row.name,
      caller: holder.row.caller,
      leaseEndsInMs: Math.max(0, round(lapseMs(holder) - nowMs)),
    }));
  }
}

/** Whether the verifier's cursor shows that it has applied these invalidations. */
function hasPassed({ cursor }: LeaseRow, { log, invalidations }: Wait): boolean {
  return cursor !== null && cursor.log === log && invalidations.every(({ xid }) => BigInt(xid) < BigInt(cursor.xid));
}

/** When the holder's lease has certainly lapsed. */
const lapseMs = ({ row, sinceMs }: Holder): number => sinceMs + lapsedAfterMs(row.leaseMs);
const noneYet = (): Record<By, number> => ({ ack: 0, cursor: 0, released: 0, lease: 0 });
const round = (ms: number): number => Math.round(ms * 100) / 100;
