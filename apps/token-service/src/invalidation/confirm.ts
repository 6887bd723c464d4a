import {
  type Effect,
  feedKey,
  type Invalidation,
  type Pending,
  type Receipt,
  readAcknowledgement,
  signInvalidation,
  verifierKey,
} from '@latchkey/contracts';
import type { InvalidationLog } from './log.js';
import { type Bus, type InvalidationStore, type JudgeClock, type LeaseRow, lapsedAfterMs } from './types.js';

/** Longest acknowledgement that is looked at, in UTF-16 code units; a real one has about 200. */
const ACKNOWLEDGEMENT_LENGTH_MAX = 1_000;
/**
 * How soon after publishing rows are read again and what is unconfirmed is published again; doubles up to two seconds.
 * Far longer than verifiers need: sooner, and a system that is merely slow would be given several times the work.
 */
const LOOK_AGAIN_MS = 500;
const LOOK_AGAIN_MS_MAX = 2_000;
/** What a caller waits beyond the longest that a confirmation takes. */
const PATIENCE_MS = 2_000;

export interface ConfirmOptions {
  /** Longest to wait; the confirmation itself goes on. Default: one lease, its drift allowance and two seconds. */
  readonly waitMs?: number | undefined;
  /** Called once with the receipt when all verifiers have confirmed, however long after the answer. */
  readonly onEffective?: ((receipt: Receipt) => Promise<void>) | undefined;
}

export interface ConfirmationsParts {
  readonly store: InvalidationStore;
  readonly log: InvalidationLog;
  readonly bus: Bus;
  readonly clock: JudgeClock;
  readonly leaseMs: number;
  readonly eventsSecret: Uint8Array;
}

type By = Receipt['verifiers'][number]['by'];

/** One verifier that may hold a stale answer. */
interface Holder {
  readonly row: LeaseRow;
  /** Invalidations that it has not acknowledged. */
  readonly unacknowledged: Set<string>;
}

/** One wait, until nobody may hold a stale answer. */
interface Wait {
  readonly invalidations: readonly Invalidation[];
  readonly startedMs: number;
  /** When the leases had been read: whatever they were before, they last no longer than from here. */
  readonly readMs: number;
  readonly log: string;
  readonly holders: Map<string, Holder>;
  readonly confirmed: Receipt['verifiers'];
  readonly finish: (receipt: Receipt) => void;
  /** Answers whoever waits with what is pending. */
  giveUp: () => void;
  cancelTimer: () => void;
  lookAgainMs: number;
}

export interface ConfirmationCounters {
  started: number;
  effective: number;
  by: Record<By, number>;
  published: number;
  publishFailed: number;
  acknowledgementsDropped: number;
  looksFailed: number;
  receiptsFailed: number;
}

/**
 * Waits until no verifier can answer from before a committed invalidation. Redis only makes it faster: each verifier
 * is waited for until its authenticated acknowledgement, the end of its row, a cursor past the invalidation, or the
 * end of its lease with the drift allowance, by this process's own clock.
 */
export class Confirmations {
  readonly #parts: ConfirmationsParts;
  readonly #feedKey: Uint8Array;
  readonly #waits = new Set<Wait>();
  readonly #byInvalidation = new Map<string, Set<Wait>>();
  #unsubscribe: (() => void) | undefined;
  #stopped = false;
  /** Called with the time of each confirmation, in milliseconds. */
  onEffective: (elapsedMs: number) => void = () => undefined;
  readonly counters: ConfirmationCounters = {
    started: 0,
    effective: 0,
    by: { ack: 0, cursor: 0, released: 0, lease: 0 },
    published: 0,
    publishFailed: 0,
    acknowledgementsDropped: 0,
    looksFailed: 0,
    receiptsFailed: 0,
  };

  constructor(parts: ConfirmationsParts) {
    this.#parts = parts;
    this.#feedKey = feedKey(parts.eventsSecret);
  }

  /** Confirmations not finished yet. */
  get pending(): number {
    return this.#waits.size;
  }

  start(): void {
    this.#unsubscribe ??= this.#parts.bus.subscribe((text) => this.#onAcknowledgement(text));
  }

  /** Ends all waiting; what was not confirmed is confirmed when its change is asked for again. */
  stop(): void {
    this.#stopped = true;
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    for (const wait of this.#waits) {
      wait.cancelTimer();
      wait.giveUp();
    }
    this.#waits.clear();
    this.#byInvalidation.clear();
  }

  /**
   * Confirms invalidations whose transaction has been committed. They may be of any age: verifiers acknowledge again.
   * @throws what the store throws when it cannot tell which verifiers there are; the invalidations are published still
   */
  async confirm(invalidations: readonly Invalidation[], options: ConfirmOptions = {}): Promise<Effect> {
    const { clock, log, leaseMs } = this.#parts;
    const { onEffective } = options;
    const waitMs = this.#stopped ? 0 : (options.waitMs ?? lapsedAfterMs(leaseMs) + PATIENCE_MS);
    this.counters.started++;
    const startedMs = clock.monotonicMs();
    let reading: Awaited<ReturnType<InvalidationLog['leases']>>;
    try {
      reading = await log.leases();
    } catch (error) {
      // Verifiers of whatever log drop what is named in any: better said without a name than not at all.
      for (const invalidation of invalidations) this.#publish(invalidation, invalidation.id);
      throw error;
    }
    const { wait, finished } = this.#open(invalidations, startedMs, reading);
    if (onEffective) {
      // Nobody waits for the keeping of the receipt: should it fail, a repeat confirms again.
      finished.then(onEffective).catch(() => this.counters.receiptsFailed++);
    }
    for (const invalidation of invalidations) this.#publish(invalidation, wait.log);
    this.#settle(wait);
    const receipt = await Promise.race([finished, this.#patience(wait, waitMs, finished)]);
    return receipt
      ? { effective: true, receipt, pending: [] }
      : { effective: false, receipt: null, pending: this.#pendingOf(wait) };
  }

  #open(
    invalidations: readonly Invalidation[],
    startedMs: number,
    reading: { log: string; leases: LeaseRow[] },
  ): { wait: Wait; finished: Promise<Receipt> } {
    const { promise: finished, resolve: finish } = Promise.withResolvers<Receipt>();
    const ids = invalidations.map(({ id }) => id);
    const wait: Wait = {
      invalidations,
      startedMs,
      readMs: this.#parts.clock.monotonicMs(),
      log: reading.log,
      holders: new Map(reading.leases.map((row) => [row.verifierId, { row, unacknowledged: new Set(ids) }])),
      confirmed: [],
      finish,
      giveUp: () => undefined,
      cancelTimer: () => undefined,
      lookAgainMs: LOOK_AGAIN_MS,
    };
    this.#waits.add(wait);
    for (const id of ids) {
      const waits = this.#byInvalidation.get(id);
      if (waits) waits.add(wait);
      else this.#byInvalidation.set(id, new Set([wait]));
    }
    for (const { row } of [...wait.holders.values()]) {
      if (hasPassed(row, wait)) this.#confirmed(wait, row.verifierId, 'cursor');
    }
    return { wait, finished };
  }

  /** Resolves with undefined after `ms` or when the process stops, unless the confirmation ends first. */
  #patience(wait: Wait, ms: number, finished: Promise<Receipt>): Promise<undefined> {
    return new Promise((resolve) => {
      wait.giveUp = () => resolve(undefined);
      const cancel = this.#parts.clock.after(ms, wait.giveUp);
      void finished.then(cancel);
    });
  }

  #publish(invalidation: Invalidation, log: string): void {
    this.counters.published++;
    const text = JSON.stringify(signInvalidation(this.#feedKey, log, invalidation));
    this.#parts.bus.publish(text).catch(() => this.counters.publishFailed++);
  }

  #onAcknowledgement(text: string): void {
    const { eventsSecret } = this.#parts;
    const event =
      text.length <= ACKNOWLEDGEMENT_LENGTH_MAX
        ? readAcknowledgement((verifier) => verifierKey(eventsSecret, verifier), text)
        : undefined;
    if (!event) {
      this.counters.acknowledgementsDropped++;
      return;
    }
    for (const wait of [...(this.#byInvalidation.get(event.invalidation) ?? [])]) {
      const holder = wait.holders.get(event.verifier);
      if (!holder?.unacknowledged.delete(event.invalidation) || holder.unacknowledged.size > 0) continue;
      this.#confirmed(wait, event.verifier, 'ack');
      this.#settle(wait);
    }
  }

  #confirmed(wait: Wait, verifierId: string, by: By): void {
    const holder = wait.holders.get(verifierId);
    if (!holder) return;
    wait.holders.delete(verifierId);
    this.counters.by[by]++;
    const ms = round(this.#parts.clock.monotonicMs() - wait.startedMs);
    wait.confirmed.push({ id: verifierId, name: holder.row.name, by, ms });
  }

  /** Ends the wait when nobody is left, or arranges for the next look. */
  #settle(wait: Wait): void {
    if (!this.#waits.has(wait)) return;
    const { clock } = this.#parts;
    wait.cancelTimer();
    if (wait.holders.size > 0) {
      const elapsedMs = clock.monotonicMs() - wait.readMs;
      const nextLapseMs = Math.min(...[...wait.holders.values()].map(({ row }) => lapsedAfterMs(row.leaseMs)));
      const delayMs = Math.max(1, Math.min(wait.lookAgainMs, nextLapseMs - elapsedMs));
      wait.cancelTimer = clock.after(delayMs, () => void this.#look(wait));
      return;
    }
    this.#waits.delete(wait);
    for (const { id } of wait.invalidations) {
      const waits = this.#byInvalidation.get(id);
      waits?.delete(wait);
      if (waits?.size === 0) this.#byInvalidation.delete(id);
    }
    this.counters.effective++;
    const elapsedMs = round(clock.monotonicMs() - wait.startedMs);
    this.onEffective(elapsedMs);
    wait.finish({
      confirmedAt: new Date(clock.wallMs()).toISOString(),
      elapsedMs,
      verifiers: wait.confirmed,
    });
  }

  /** What Redis has not told: leases that have lapsed, rows that are gone, cursors that have passed. Then it is told again. */
  async #look(wait: Wait): Promise<void> {
    const { clock, log, store } = this.#parts;
    const elapsedMs = clock.monotonicMs() - wait.readMs;
    for (const { row } of [...wait.holders.values()]) {
      if (elapsedMs < lapsedAfterMs(row.leaseMs)) continue;
      this.#confirmed(wait, row.verifierId, 'lease');
      // Watched for that long by this process: dead, unless it has been renewed since.
      store.deleteLease(row.verifierId, row.renewal).catch(() => this.counters.looksFailed++);
    }
    if (wait.holders.size > 0) {
      try {
        const reading = await log.leases();
        const rows = new Map(reading.leases.map((row) => [row.verifierId, row]));
        for (const { row } of [...wait.holders.values()]) {
          const now = rows.get(row.verifierId);
          if (!now) this.#confirmed(wait, row.verifierId, 'released');
          else if (hasPassed(now, wait)) this.#confirmed(wait, row.verifierId, 'cursor');
        }
      } catch {
        this.counters.looksFailed++; // the leases lapse all the same
      }
    }
    if (wait.holders.size > 0) for (const invalidation of wait.invalidations) this.#publish(invalidation, wait.log);
    wait.lookAgainMs = Math.min(wait.lookAgainMs * 2, LOOK_AGAIN_MS_MAX);
    this.#settle(wait);
  }

  #pendingOf(wait: Wait): Pending {
    const elapsedMs = this.#parts.clock.monotonicMs() - wait.readMs;
    return [...wait.holders.values()].map(({ row }) => ({
      id: row.verifierId,
      name: row.name,
      leaseEndsInMs: Math.max(0, round(lapsedAfterMs(row.leaseMs) - elapsedMs)),
    }));
  }
}

/** Whether the verifier has said that it applied everything of lower transaction ids than a higher one. */
function hasPassed({ cursor }: LeaseRow, { log, invalidations }: Wait): boolean {
  return cursor !== null && cursor.log === log && invalidations.every(({ xid }) => BigInt(xid) < BigInt(cursor.xid));
}

const round = (ms: number): number => Math.round(ms * 100) / 100;
