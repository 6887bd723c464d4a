import { setTimeout as sleep } from 'node:timers/promises';

/** How long requests under way have to finish once nothing more is accepted. */
const DRAIN_MS = 8_000;
/** For what follows: the last bytes of broken responses, the last usage, the release of the lease; a third each. */
const ENDING_MS = 3_000;
/** How long a connection is kept for one more request where others accept instead. */
const LAST_REQUEST_MS = 2_000;
/** By how much each limit that ends a stop lies behind the one before. */
const MARGIN_MS = 1_000;

/** The limits of a stop, each in milliseconds from its begin: one budget for all of its phases. */
export interface StopLimits {
  /** Accepts until then, or, where others accept, awaits one more request on each connection. */
  readonly acceptedMs: number;
  readonly drainedMs: number;
  readonly stoppedMs: number;
  /** The primary kills a process that has not ended. */
  readonly killedMs: number;
  /** The primary, or a gateway of one process, exits although something still runs. */
  readonly exitMs: number;
}

/** @param delayMs `SHUTDOWN_DELAY_MS` */
export function stopLimits(delayMs: number): StopLimits {
  const drainedMs = Math.max(delayMs, LAST_REQUEST_MS) + DRAIN_MS;
  const stoppedMs = drainedMs + ENDING_MS;
  const killedMs = stoppedMs + MARGIN_MS;
  return { acceptedMs: delayMs, drainedMs, stoppedMs, killedMs, exitMs: killedMs + MARGIN_MS };
}

export interface StopOptions {
  /** Others accept in its place: it accepts nothing, and awaits one more request on each connection, for two seconds. */
  readonly othersAccept?: boolean;
  /** Its ports must be free at once: it accepts nothing, and closes what is idle. */
  readonly atOnce?: boolean;
}

/** A stop under way. */
export class Stop {
  readonly othersAccept: boolean;
  readonly #startedAtMs = performance.now();
  readonly #hurried = new AbortController();

  constructor(
    readonly limits: StopLimits,
    options: StopOptions = {},
  ) {
    this.othersAccept = options.othersAccept === true;
    if (options.atOnce) this.hurry();
  }

  /** Ends the time in which it accepts. */
  hurry(): void {
    this.#hurried.abort();
  }

  /** Resolves when nothing more is to be accepted. */
  async accepted(): Promise<void> {
    const ms = this.othersAccept ? LAST_REQUEST_MS : this.limits.acceptedMs;
    await sleep(ms, undefined, { signal: this.#hurried.signal }).catch(() => undefined);
  }

  /** What is left until a limit of this stop; 0 when it has passed. */
  leftMs(untilMs: number): number {
    return Math.max(0, this.#startedAtMs + untilMs - performance.now());
  }

  /** Of the time behind the drain, what the last usage can take; the rest is for the lease. */
  get usageMs(): number {
    return this.leftMs(this.limits.stoppedMs - ENDING_MS / 3);
  }
}

/** Waits for `promise`, but no longer than `ms`. @returns undefined when that has passed */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const timeout = new AbortController();
  const late = sleep(ms, undefined, { signal: timeout.signal }).catch(() => undefined);
  try {
    return await Promise.race([promise, late]);
  } finally {
    timeout.abort();
  }
}
