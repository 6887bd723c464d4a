import { setTimeout as sleep } from 'node:timers/promises';

/** Something that runs as a process of its own and is ready for use. */
export interface Running {
  readonly pid: number;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  stop(): Promise<void>;
}

const firstPauseMs = 250;
const longestPauseMs = 30_000;
/** Whoever ran for this long starts again as quickly as at first. */
const settledMs = 60_000;

/** Keeps one process running: whenever it ends by itself it is started again, each time after a longer pause. */
export class Watched<T extends Running = Running> {
  private current: T | undefined;
  private readonly stopping = new AbortController();
  private watching: Promise<void> = Promise.resolve();

  /**
   * @param name for messages
   * @param startOnce starts the process and answers once it is ready; ends what it started when the signal comes
   * @param report is told what happens, in sentences
   * @param onChange is told each time that a new process is ready
   */
  constructor(
    readonly name: string,
    private readonly startOnce: (signal: AbortSignal) => Promise<T>,
    private readonly report: (line: string) => void,
    private readonly onChange: () => void = () => undefined,
  ) {}

  /** The process that runs now; `undefined` between its end and the next start. */
  get running(): T | undefined {
    return this.current;
  }

  /**
   * Starts the process for the first time, and watches it from then on.
   *
   * @throws what the first start throws; nothing is watched then
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

  /** Ends the process for good. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.current?.stop();
    await this.watching;
  }

  private async watch(first: T): Promise<void> {
    let running: T | undefined = first;
    let startedAt = performance.now();
    let pauseMs = firstPauseMs;
    while (running) {
      const { code, signal } = await running.exited;
      this.current = undefined;
      if (this.stopping.signal.aborted) return;
      if (performance.now() - startedAt >= settledMs) pauseMs = firstPauseMs;
      this.report(`${this.name} ended by itself (${signal ?? `code ${code}`}); starting it again`);
      running = undefined;
      while (!running) {
        await sleep(pauseMs, undefined, { signal: this.stopping.signal }).catch(() => undefined);
        if (this.stopping.signal.aborted) return;
        pauseMs = Math.min(pauseMs * 2, longestPauseMs);
        startedAt = performance.now();
        running = await this.startOnce(this.stopping.signal).catch((error: Error) => {
          if (!this.stopping.signal.aborted) this.report(`${this.name} did not start: ${error.message}`);
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
