import type { Clock } from './types.js';

/** Most that is saved up: what is done in one go holds up everything else for so long. */
const SAVED_MAX = 64;

/** So many a second, of which up to 64 are saved up. */
export class Budget {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #perSecond: number;
  readonly #max: number;
  #left: number;
  #countedAtMs: number;

  constructor(clock: Pick<Clock, 'monotonicMs'>, perSecond: number) {
    this.#clock = clock;
    this.#perSecond = perSecond;
    this.#max = Math.min(perSecond, SAVED_MAX);
    this.#left = this.#max;
    this.#countedAtMs = clock.monotonicMs();
  }

  /** False when there is nothing left. */
  take(): boolean {
    const nowMs = this.#clock.monotonicMs();
    this.#left = Math.min(this.#max, this.#left + ((nowMs - this.#countedAtMs) * this.#perSecond) / 1_000);
    this.#countedAtMs = nowMs;
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }
}
