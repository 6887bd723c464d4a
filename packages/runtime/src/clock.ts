import { uptime } from 'node:os';
import { performance } from 'node:perf_hooks';

/** Sources of elapsed time. Three, because each alone can stand still or jump. */
export interface Clock {
  /** Monotonic milliseconds; stands still while the machine is suspended. */
  monotonicMs(): number;
  /** Milliseconds since the machine started, suspension included. */
  uptimeMs(): number;
  /** Unix milliseconds; can be stepped. */
  wallMs(): number;
  /** Calls back once after at least `ms`; returns a function that cancels it. Does not keep the process alive. */
  after(ms: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  uptimeMs: () => uptime() * 1000,
  wallMs: () => Date.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
