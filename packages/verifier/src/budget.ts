import type { Clock } from './types.js';

/** Largest burst: while it is processed, everything else waits. */
const BURST_MAX = 64;

/** A token bucket: `perSecond` a second, in bursts of at most 64. */
export class Budget {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #perSecond: number;
  readonly #max: number;
  #left: number;
  #countedAtMs: number;

  constructor(clock: Pick<Clock, 'monotonicMs'>, perSecond: number) {
    this.#clock = clock;
    this.#perSecond = perSecond;
    this.#max = Math.min(perSecond, BURST_MAX);
    this.#left = this.#max;
    this.#countedAtMs = clock.monotonicMs();
  }

  /** False when the budget is used up. */
  take(): boolean {
    const nowMs = this.#clock.monotonicMs();
    this.#left = Math.min(this.#max, this.#left + ((nowMs - this.#countedAtMs) * this.#perSecond) / 1_000);
    this.#countedAtMs = nowMs;
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }
}
