import type { Clock } from './types.js';

/** So many a second, saved up for one second at most. */
export class Budget {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #perSecond: number;
  #left: number;
  #countedAtMs: number;

  constructor(clock: Pick<Clock, 'monotonicMs'>, perSecond: number) {
    this.#clock = clock;
    this.#perSecond = perSecond;
    this.#left = perSecond;
    this.#countedAtMs = clock.monotonicMs();
  }

  /** False when there is nothing left. */
  take(): boolean {
    if (this.isSpent()) return false;
    this.#left--;
    return true;
  }

  /** Whether `take` would answer false. */
  isSpent(): boolean {
    const nowMs = this.#clock.monotonicMs();
    this.#left = Math.min(this.#perSecond, this.#left + ((nowMs - this.#countedAtMs) * this.#perSecond) / 1_000);
    this.#countedAtMs = nowMs;
    return this.#left < 1;
  }
}
