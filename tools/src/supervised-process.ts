import { setTimeout as sleep } from 'node:timers/promises';

/** A running process that is ready for use. */
export interface Running {
  readonly pid: number;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  stop(): Promise<void>;
}

const firstDelayMs = 250;
const longestDelayMs = 30_000;
/** After running for this long, the delay is reset. */
const stableMs = 60_000;

/** Keeps one process running: restarts it with exponential backoff whenever it exits by itself. */
export class SupervisedProcess<T extends Running = Running> {
  private current: T | undefined;
  private readonly stopping = new AbortController();
  private watching: Promise<void> = Promise.resolve();

  /**
   * @param name for messages
   * @param startOnce starts the process and resolves once it is ready; stops it when the signal is aborted
   * @param report called with messages about restarts
   * @param onChange called each time a new process is ready
   */
  constructor(
    readonly name: string,
    private readonly startOnce: (signal: AbortSignal) => Promise<T>,
    private readonly report: (line: string) => void,
    private readonly onChange: () => void = () => undefined,
  ) {}

  /** The current process; `undefined` between its exit and the next start. */
  get running(): T | undefined {
    return this.current;
  }

  /**
   * Starts the process for the first time, and supervises it from then on.
   *
   * @throws what the first start throws; nothing is supervised then
   */
  async start(): Promise<T> {
    const first = await this.startOnce(this.stopping.signal);
    if (this.stopping.signal.aborted) {
      await first.stop();
      throw new Error(`${this.name} was stopped while it started`);
    }
    this.current = first;
    this.watching = this.watch(first);
    return first;
  }

  /** Stops the process for good. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.current?.stop();
    await this.watching;
  }

  private async watch(first: T): Promise<void> {
    let running: T | undefined = first;
    let startedAt = performance.now();
    let delayMs = firstDelayMs;
    while (running) {
      const { code, signal } = await running.exited;
      this.current = undefined;
      if (this.stopping.signal.aborted) return;
      if (performance.now() - startedAt >= stableMs) delayMs = firstDelayMs;
      this.report(`${this.name} exited (${signal ?? `code ${code}`}); restarting`);
      running = undefined;
      while (!running) {
        await sleep(delayMs, undefined, { signal: this.stopping.signal }).catch(() => undefined);
        if (this.stopping.signal.aborted) return;
        delayMs = Math.min(delayMs * 2, longestDelayMs);
        startedAt = performance.now();
        running = await this.startOnce(this.stopping.signal).catch((error: Error) => {
          if (!this.stopping.signal.aborted) this.report(`starting ${this.name} failed: ${error.message}; retrying`);
          return undefined;
        });
      }
      this.current = running;
      if (this.stopping.signal.aborted) await running.stop();
      else {
        this.report(`${this.name} is ready again`);
        this.onChange();
      }
    }
  }
}
