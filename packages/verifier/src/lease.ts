import type { Cursor, RenewResponse } from '@latchkey/contracts';
import { type Applied, type Fact, kindOf } from './applied.js';
import type { Counters } from './counters.js';
import type { VerifierLimits } from './limits.js';
import { later, type Moment, type Timekeeper } from './time.js';
import type { Clock, TokenSource } from './types.js';

export interface LeaseParts {
  readonly id: string;
  readonly name: string;
  readonly clock: Clock;
  readonly time: Timekeeper;
  readonly source: TokenSource;
  readonly applied: Applied;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
  /** Overtakes what the invalidation names. */
  readonly apply: (fact: Fact) => void;
  /** Empties the memory and poisons every fill in flight. */
  readonly reset: () => void;
  /** A cursor is about to be sent, which says that everything before it has been applied. */
  readonly onCursor: () => void;
  /** The keys have come with a first renewal. */
  readonly onKeys: () => void;
}

export interface Keys {
  readonly acknowledgements: Uint8Array;
  readonly feed: Uint8Array;
}

/** The right to answer from memory, renewed every third of its length. */
export class Lease {
  readonly #parts: LeaseParts;
  #granted: { readonly asked: Moment; readonly ms: number } | undefined;
  #keys: Keys | undefined;
  #renewal: Promise<void> | undefined;
  #cancelTimer: () => void = () => undefined;
  #failed = false;
  #stopped = false;

  constructor(parts: LeaseParts) {
    this.#parts = parts;
  }

  /** Whether memory may be answered from at this very moment. */
  held(): boolean {
    return this.#granted !== undefined && this.#parts.time.elapsedMs(this.#granted.asked) < this.#granted.ms;
  }

  get keys(): Keys | undefined {
    return this.#keys;
  }

  /** Length of the lease last granted; undefined before the first. */
  get lengthMs(): number | undefined {
    return this.#granted?.ms;
  }

  /** Until when the lease last granted runs, on the clocks that nobody steps; undefined before the first. */
  get end(): Moment | undefined {
    return this.#granted && later(this.#granted.asked, this.#granted.ms);
  }

  /** Milliseconds until it lapses; 0 without one. */
  leftMs(): number {
    const granted = this.#granted;
    return granted ? Math.max(0, granted.ms - this.#parts.time.elapsedMs(granted.asked)) : 0;
  }

  /** Resolves when the first renewal has been answered or has failed; renewing goes on until `stop`. */
  start(): Promise<void> {
    return this.#renew();
  }

  /** Renews at once when a clock has ended the lease before its renewal was due. */
  hurry(): void {
    if (!this.#stopped && !this.#renewal && !this.#failed && this.#granted && !this.held()) void this.#renew();
  }

  /** Stops answering from memory at once; then waits for the renewal in flight and gives the lease back. */
  async stop(): Promise<void> {
    const { source, id, counters } = this.#parts;
    this.#stopped = true;
    this.#granted = undefined;
    this.#cancelTimer();
    await this.#renewal;
    try {
      await source.release(id);
    } catch {
      counters.releasesFailed++; // it lapses by itself
    }
  }

  #renew(): Promise<void> {
    this.#cancelTimer();
    this.#renewal = this.#ask().finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  async #ask(): Promise<void> {
    const { id, name, clock, time, source, applied, limits, counters, onCursor } = this.#parts;
    const asked = time.note();
    const { cursor } = applied;
    if (cursor) onCursor();
    this.#failed = true;
    try {
      const answer = await source.renew({ verifierId: id, name, cursor });
      if (this.#stopped) return;
      this.#failed = !this.#accept(answer, asked, cursor);
    } catch {
      counters.renewalsFailed++;
      if (this.#stopped) return;
    }
    const delayMs =
      this.#failed || !this.#granted ? limits.renewRetryMs : Math.max(0, this.#granted.ms / 3 - time.elapsedMs(asked));
    this.#cancelTimer = clock.after(delayMs, () => void this.#renew());
  }

  /** False when the answer came after the end of the lease that it grants, or grants none. */
  #accept(answer: RenewResponse, asked: Moment, sent: Cursor | null): boolean {
    const { time, applied, counters, apply, reset, onKeys } = this.#parts;
    const { leaseMs, cursor } = answer;
    if (!cursor || !(time.elapsedMs(asked) < leaseMs)) {
      counters.renewalsLate++;
      return false;
    }
    if (answer.reset || sent?.log !== cursor.log) {
      counters.resets++;
      reset();
    }
    for (const { id, kind, subject, cut, xid } of answer.invalidations) {
      const fact: Fact = { id, kind: kindOf(kind), subject, cut, xid };
      if (applied.includes(cursor.log, fact)) counters.invalidationsRepeated++;
      else apply(fact);
    }
    applied.advance(cursor);
    this.#keys = { acknowledgements: answer.ackKey, feed: answer.feedKey };
    this.#granted = { asked, ms: leaseMs };
    counters.renewals++;
    onKeys();
    return true;
  }
}
