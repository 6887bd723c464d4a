import { setTimeout as sleep } from 'node:timers/promises';

/** Works through what is put in, so many at once and in its order. Whoever puts something in never waits for it. */
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

  /** Resolves when all is done that has been put in, what is put in meanwhile too. */
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

/** Waits for it, but not for longer. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const given = new AbortController();
  await Promise.race([work, sleep(ms, undefined, { signal: given.signal, ref: false }).catch(() => undefined)]);
  given.abort();
}
