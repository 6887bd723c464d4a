import type { Clock } from './types.js';

/** One instant on every clock. `bootMs` counts suspension too. */
export interface Moment {
  readonly monotonicMs: number;
  readonly wallMs: number;
  readonly bootMs: number;
}

/** The uptime is read again once this much monotonic time has passed since the last reading. */
const UPTIME_REUSED_MS = 10;
/** It is also read again when wall and monotonic time since then differ by more than this. */
const DISAGREEMENT_MS = 5;

/**
 * Elapsed time as the greatest of the monotonic clock, the system's uptime and wall time.
 *
 * Reading the uptime costs forty times as much as the other two, so its lead over the monotonic clock is reused for up to
 * 10 ms of monotonic time. Only suspension increases the lead. A suspension moves wall time ahead of monotonic time, so
 * that the next call reads the uptime again; if wall time is stepped back by the same amount meanwhile, the suspension is
 * detected 10 ms of running time later.
 */
export class Timekeeper {
  readonly #clock: Clock;
  /** As last read by any method here. */
  monotonicMs = 0;
  wallMs = 0;
  #leadMs = 0;
  #readAtMs = Number.NEGATIVE_INFINITY;
  #readWallMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(): Moment {
    this.#read();
    this.#readUptime();
    const { monotonicMs, wallMs } = this;
    return { monotonicMs, wallMs, bootMs: monotonicMs + this.#leadMs };
  }

  /** Milliseconds since `moment`; wall time can only lengthen it. */
  elapsedMs(moment: Moment): number {
    const steadyMs = this.steadyMs(moment);
    return Math.max(steadyMs, this.wallMs - moment.wallMs);
  }

  /** Milliseconds since `moment` on the clocks that are never stepped. Negative before it. */
  steadyMs(moment: Moment): number {
    this.#read();
    const { monotonicMs } = this;
    const sinceMs = monotonicMs - this.#readAtMs;
    // In this form a NaN of a clock causes a new reading.
    const isReused =
      sinceMs <= UPTIME_REUSED_MS && Math.abs(this.wallMs - this.#readWallMs - sinceMs) <= DISAGREEMENT_MS;
    if (!isReused) this.#readUptime();
    return Math.max(monotonicMs - moment.monotonicMs, monotonicMs + this.#leadMs - moment.bootMs);
  }

  #read(): void {
    this.monotonicMs = this.#clock.monotonicMs();
    this.wallMs = this.#clock.wallMs();
  }

  #readUptime(): void {
    this.#leadMs = this.#clock.uptimeMs() - this.monotonicMs;
    this.#readAtMs = this.monotonicMs;
    this.#readWallMs = this.wallMs;
  }
}

/** The moment `ms` after another. */
export const later = (moment: Moment, ms: number): Moment => ({
  monotonicMs: moment.monotonicMs + ms,
  wallMs: moment.wallMs + ms,
  bootMs: moment.bootMs + ms,
});
