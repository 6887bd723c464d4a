import { setTimeout as sleep } from 'node:timers/promises';

/** Processes items in order with bounded concurrency. `put` never waits. */
export class Queue<T> {
  readonly #work: (item: T) => Promise<void>;
  readonly #atOnceMax: number;
  readonly #waiting: T[] = [];
  readonly #running = new Set<Promise<void>>();

  /** @param work never rejects */
  constructor(atOnceMax: number, work: (item: T) => Promise<void>) {
    this.#atOnceMax = atOnceMax;
    this.#work = work;
  }

  put(item: T): void {
    this.#waiting.push(item);
    this.#next();
  }

  /** Resolves when every item is processed, including those put in meanwhile. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.race(this.#running);
  }

  #next(): void {
    while (this.#waiting.length > 0 && this.#running.size < this.#atOnceMax) {
      const running: Promise<void> = this.#work(this.#waiting.shift()!).finally(() => {
        this.#running.delete(running);
        this.#next();
      });
      this.#running.add(running);
    }
  }
}

/** Waits for the work, at most this long. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const timeout = new AbortController();
  await Promise.race([work, sleep(ms, undefined, { signal: timeout.signal, ref: false }).catch(() => undefined)]);
  timeout.abort();
}
