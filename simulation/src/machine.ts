import type { Clock } from '@latchkey/verifier';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';

/** Rates that differ by less than the drift allowance of 20 %: 1.10 / 0.92 = 1.196. */
export const SLOWEST = 0.92;
export const FASTEST = 1.1;
/** Node's timers can fire this much early, because its loop keeps time in whole milliseconds. */
const TIMER_EARLY_MS = 1;
/** As the shipped `Timekeeper`: how long a reading of the uptime is cached, and what wall time may disagree by, with its rounding. */
const UPTIME_CACHED_MS = 10;
const HIDDEN_WITHIN_MS = 6;
/** os.uptime() counts in hundredths of a second. */
const UPTIME_STEP_MS = 10;

/**
 * One machine with one process: its clocks, its timers, and everything that reaches the process. A paused process
 * (stopped, swapped out, a long garbage collection) receives all that came meanwhile when it resumes; a sleeping
 * machine's monotonic clock stands still; a dead process receives nothing.
 */
export class Machine implements Clock {
  readonly #schedule: Schedule;
  readonly #random: Random;
  #readAtMs: number;
  #monotonicMs: number;
  #suspendedMs: number;
  #wallOffsetMs: number;
  #rate: number;
  /**
   * A sleep whose length the wall clock was set back by meanwhile is noticed once the uptime is read again: until then, in
   * true time, a lease that lapsed in it can seem to be valid. A documented limit.
   */
  hiddenUntilMs = Number.NEGATIVE_INFINITY;
  #suspendedBeforeMs = 0;
  #steppedAsleepMs = 0;
  /** When the machine last began to run, in true time. */
  runningSinceMs = 0;
  #state: 'running' | 'paused' | 'asleep' = 'running';
  /** Everything handed to an earlier process has an older number and is dropped. */
  #process = 0;
  #waiting: (() => void)[] = [];
  readonly #exitListeners = new Set<() => void>();

  constructor(schedule: Schedule, random: Random) {
    this.#schedule = schedule;
    this.#random = random;
    this.#readAtMs = schedule.nowMs;
    this.#monotonicMs = random.int(1_000, 1_000_000);
    this.#suspendedMs = random.int(0, 1_000_000);
    this.#wallOffsetMs = Date.UTC(2030, 0, 1) + random.int(-60_000, 60_000);
    this.#rate = SLOWEST + random.float() * (FASTEST - SLOWEST);
  }

  monotonicMs(): number {
    this.#read();
    return this.#monotonicMs;
  }

  uptimeMs(): number {
    this.#read();
    return Math.floor((this.#monotonicMs + this.#suspendedMs) / UPTIME_STEP_MS) * UPTIME_STEP_MS;
  }

  wallMs(): number {
    this.#read();
    return Math.floor(this.#monotonicMs + this.#suspendedMs + this.#wallOffsetMs);
  }

  after(ms: number, callback: () => void): () => void {
    const dueMs = this.monotonicMs() + Math.max(1, ms) - this.#random.float() * TIMER_EARLY_MS;
    const process = this.#process;
    let cancelled = false;
    const check = () => {
      if (cancelled || process !== this.#process) return;
      const leftMs = dueMs - this.monotonicMs();
      // After months a number of milliseconds has no more digits than that.
      if (leftMs > Math.max(1e-6, this.#schedule.nowMs * 1e-15))
        this.#schedule.after(this.#state === 'asleep' ? 20 : leftMs / this.#rate, check);
      else this.#dispatch(() => !cancelled && callback(), process);
    };
    check();
    return () => {
      cancelled = true;
    };
  }

  /** Runs something in the running process, as soon as it can; never if it dies first. */
  deliver(what: () => void): void {
    this.#dispatch(what, this.#process);
  }

  /** Delivers to the running process, and to no later one: `ms` from the call, it runs `what`. */
  address(): (ms: number, what: () => void) => void {
    const process = this.#process;
    return (ms, what) => void this.#schedule.after(ms, () => this.#dispatch(what, process));
  }

  /** As `deliver`, for a message that arrives after `ms`. */
  deliverAfter(ms: number, what: () => void): void {
    this.address()(ms, what);
  }

  get running(): boolean {
    return this.#state === 'running';
  }

  pause(): void {
    this.#enter('paused');
  }

  sleep(): void {
    this.#enter('asleep');
  }

  /** Ends a pause or a sleep. What waited arrives in any order, interleaved with other events. */
  resume(): void {
    this.#enter('running');
    const process = this.#process;
    for (const what of this.#waiting.splice(0)) {
      this.#schedule.after(this.#random.float(), () => this.#dispatch(what, process));
    }
  }

  /** Calls back if the running process is killed; the returned function cancels that. */
  onDeath(callback: () => void): () => void {
    this.#exitListeners.add(callback);
    return () => this.#exitListeners.delete(callback);
  }

  /** The process ends; what starts next has none of its timers or messages. */
  kill(): void {
    this.#process++;
    this.#waiting = [];
    const listeners = [...this.#exitListeners];
    this.#exitListeners.clear();
    this.#enter('running');
    for (const listener of listeners) listener();
  }

  stepWall(ms: number): void {
    this.#wallOffsetMs += ms;
    if (this.#state === 'asleep') this.#steppedAsleepMs += ms;
  }

  /** In true time. */
  get nowMs(): number {
    return this.#schedule.nowMs;
  }

  drift(): void {
    this.#read();
    this.#rate = this.#random.pick([SLOWEST, FASTEST, SLOWEST + this.#random.float() * (FASTEST - SLOWEST)]);
  }

  #dispatch(what: () => void, process: number): void {
    if (process !== this.#process) return;
    if (this.#state === 'running') what();
    else this.#waiting.push(what);
  }

  #enter(state: 'running' | 'paused' | 'asleep'): void {
    this.#read();
    if (this.#state === 'asleep' && state !== 'asleep') {
      const sleptMs = this.#suspendedMs - this.#suspendedBeforeMs;
      const isHidden = this.#steppedAsleepMs !== 0 && Math.abs(sleptMs + this.#steppedAsleepMs) <= HIDDEN_WITHIN_MS;
      if (isHidden) this.hiddenUntilMs = this.#schedule.nowMs + UPTIME_CACHED_MS / SLOWEST + UPTIME_STEP_MS;
    }
    if (state === 'asleep' && this.#state !== 'asleep') {
      this.#suspendedBeforeMs = this.#suspendedMs;
      this.#steppedAsleepMs = 0;
    }
    this.#state = state;
    this.runningSinceMs = this.#schedule.nowMs;
  }

  #read(): void {
    const passedMs = (this.#schedule.nowMs - this.#readAtMs) * this.#rate;
    this.#readAtMs = this.#schedule.nowMs;
    if (this.#state === 'asleep') this.#suspendedMs += passedMs;
    else this.#monotonicMs += passedMs;
  }
}
