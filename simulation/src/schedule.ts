import type { Random } from './random.js';

interface Due {
  readonly atMs: number;
  readonly tie: number;
  run: (() => void) | undefined;
}

/**
 * The order of events: the next event is the one due first, and among those due at the same instant the seed picks.
 * Between two events all promises that can resolve do, so a run depends on nothing but its seed.
 */
export class Schedule {
  nowMs = 0;
  readonly #random: Random;
  readonly #heap: Due[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  /** Runs `run` after `ms` of true time; the returned function cancels it. */
  after(ms: number, run: () => void): () => void {
    const due: Due = { atMs: this.nowMs + Math.max(0, ms), tie: this.#random.float(), run };
    this.#push(due);
    return () => {
      due.run = undefined;
    };
  }

  /** A promise that is fulfilled after `ms` of true time. */
  wait(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Time passes in which nothing runs: what was due meanwhile is late. */
  jump(ms: number): void {
    this.nowMs += ms;
  }

  /** Runs the next event; false when there is none up to `untilMs`, which is then the time. */
  async step(untilMs: number): Promise<boolean> {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs);
        return false;
      }
      this.#pop();
      if (!next.run) continue;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
      await flushPromises();
      return true;
    }
  }

  #push(due: Due): void {
    const heap = this.#heap;
    let at = heap.push(due) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(due, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = due;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

const before = (a: Due, b: Due) => a.atMs < b.atMs || (a.atMs === b.atMs && a.tie < b.tie);

/** Fulfilled when all code that waits on resolved promises has run. */
export const flushPromises = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
