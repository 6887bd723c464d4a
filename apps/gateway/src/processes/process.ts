import type { Worker } from 'node:cluster';
import type { Logger } from '@latchkey/runtime';
import type { RoutesSource } from '../routes/index.js';
import type { Load } from './balance.js';
import { Channel, type Handlers } from './channel.js';
import { countsOf, type ProcessMetrics } from './sums.js';

/** What a process is told at its start. */
export interface ProcessStart {
  /** Its number, from 1. */
  readonly n: number;
  readonly routes: RoutesSource;
  readonly authzPort: number;
  /** Whether it listens only once it holds a lease: others serve meanwhile. */
  readonly awaitLease: boolean;
}

export interface Exit {
  readonly exitCode: number | null;
  readonly signal: string | null;
}

/** Least time for the exit of a process that has stopped. */
const EXIT_MS = 1_000;
const METRICS_MS = 2_000;
const ROUTES_MS = 5_000;
const LOAD_MS = 1_000;

/** A gateway in a process of its own, as the primary sees it. */
export class GatewayProcess {
  /** Its addresses, once it listens. @throws when it ended before */
  readonly listening: Promise<object>;
  readonly exited: Promise<Exit>;
  state: 'starting' | 'listening' | 'ending' = 'starting';
  /** As last collected. */
  metrics: ProcessMetrics = [];
  readonly #startedAtMs = performance.now();
  readonly #channel: Channel;

  /** @param stopMs longest orderly stop */
  constructor(
    private readonly worker: Worker,
    start: ProcessStart,
    handlers: Handlers,
    private readonly stopMs: number,
    private readonly logger: Logger,
  ) {
    const channel = new Channel(worker, handlers);
    this.#channel = channel;
    this.listening = channel.ask<object>('start', start).then((addresses) => {
      this.state = 'listening';
      return addresses;
    });
    this.exited = new Promise((resolve) => {
      const onExit = (exitCode: number | null, signal: string | null) => {
        this.state = 'ending';
        channel.close(signal ? `it was ended by ${signal}` : `it exited with code ${exitCode}; its log says why`);
        resolve({ exitCode, signal });
      };
      worker.on('exit', onExit);
      // Also of a message that could not be sent; a process that could not be started has no pid.
      worker.on('error', ({ message: reason }: Error) => {
        logger.warn({ pid: this.pid, reason }, 'a gateway process cannot be reached');
        if (this.pid === undefined) onExit(1, null);
      });
    });
    // Its exit tells the same.
    this.listening.catch(() => undefined);
  }

  get pid(): number | undefined {
    return this.worker.process.pid;
  }

  get livedMs(): number {
    return performance.now() - this.#startedAtMs;
  }

  /** @returns undefined when it does not respond in time */
  async collect(): Promise<ProcessMetrics | undefined> {
    const metrics = await this.#channel.ask<ProcessMetrics>('collect', undefined, METRICS_MS).catch(() => undefined);
    if (metrics) this.metrics = metrics;
    return metrics;
  }

  /** @returns undefined when it does not respond in time */
  load(): Promise<Load | undefined> {
    return this.#channel.ask<Load>('load', undefined, LOAD_MS).catch(() => undefined);
  }

  async closeSurplus(connections: number): Promise<void> {
    await this.#channel.ask('surplus', connections, LOAD_MS).catch(() => undefined);
  }

  get counts(): ProcessMetrics {
    return countsOf(this.metrics);
  }

  /**
   * Hands over a valid routes file; a process that starts takes it before it serves.
   * @returns whether it has taken it, or serves nobody
   */
  takeRoutes(routes: RoutesSource): Promise<boolean> {
    return this.#channel.ask('routes', routes, ROUTES_MS).then(
      () => true,
      () => this.state !== 'listening',
    );
  }

  /** @returns why it cannot use the file of a setting; undefined: it can, or serves nobody any more */
  reloadSettings(): Promise<string | undefined> {
    return this.#channel
      .ask<string | undefined>('settings', undefined, ROUTES_MS)
      .catch(({ message }: Error) => (this.state === 'listening' ? message : undefined));
  }

  /** Lets it end what callers have begun, while others accept in its place, and stops it. */
  async retire(): Promise<void> {
    const { state, stopMs } = this;
    this.state = 'ending';
    const beganAtMs = performance.now();
    const metrics = state === 'listening' && this.#channel.ask<ProcessMetrics>('retire', undefined, stopMs);
    const last = metrics && (await metrics.catch(() => undefined));
    if (last) this.metrics = last;
    // What is left to do is to exit.
    await this.stop(Math.max(EXIT_MS, stopMs - (performance.now() - beganAtMs)));
  }

  /** Stops it in order, as SIGTERM does, or after `ms` not in order. */
  async stop(ms = this.stopMs): Promise<void> {
    this.worker.process.kill('SIGTERM');
    const timer = setTimeout(() => {
      this.logger.error({ pid: this.pid }, `a gateway process did not stop within ${this.stopMs} ms: killing it`);
      this.kill();
    }, ms);
    await this.exited;
    clearTimeout(timer);
  }

  kill(): void {
    this.worker.process.kill('SIGKILL');
  }
}
