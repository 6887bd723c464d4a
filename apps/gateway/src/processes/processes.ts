import cluster, { type Worker } from 'node:cluster';
import { createRegistry, freePort, type Logger } from '@latchkey/runtime';
import { Counter, Gauge, type Registry } from 'prom-client';
import { RELOAD_FAILED } from '../metrics.js';
import {
  parseRoutes,
  type Reloaded,
  type RoutesSource,
  RoutesWatch,
  readRoutes,
  withSettings,
} from '../routes/index.js';
import { surplusOf } from './balance.js';
import { GatewayProcess } from './process.js';
import { addUp, type ProcessMetrics } from './sums.js';

export interface ProcessesOptions {
  /** Of the gateway, for metrics and the log. */
  readonly version: string;
  readonly count: number;
  readonly routesFile: string;
  /** 0: a free one. */
  readonly authzPort: number;
  /** Of the gRPC port. */
  readonly opsHost: string;
  /** Longest orderly stop of a process; then it is killed. */
  readonly stopMs: number;
  /** Longest wait for a replacement to hold a lease and listen. Default 30 000. */
  readonly replacementMs?: number;
  /** Starts a process. Default: node:cluster's. */
  readonly fork?: () => Worker;
}

/** A number and the process that has it. */
interface Slot {
  readonly n: number;
  current?: GatewayProcess | undefined;
  /** Replaces `current` once it listens. */
  next?: GatewayProcess | undefined;
  /** In a row, each within LIVED_MS of its start. */
  deaths: number;
  timer?: NodeJS.Timeout;
}

/** A process that lived for so long did not end because of its start. */
const LIVED_MS = 60_000;
/** So many deaths in a row are followed by a start at once. */
const DEATHS_AT_ONCE = 2;
const PAUSE_MAX_MS = 30_000;
const REPLACEMENT_MS = 30_000;
const BALANCE_MS = 1_000;

/** How long after the death of a process the next one starts. @param deaths in a row, this one included */
export const pauseMs = (deaths: number): number =>
  deaths <= DEATHS_AT_ONCE ? 0 : Math.min(1_000 * 2 ** (deaths - DEATHS_AT_ONCE - 1), PAUSE_MAX_MS);

/** The primary of a gateway of several processes: it starts, replaces and stops them, and serves nothing itself. */
export class Processes {
  readonly #slots: readonly Slot[];
  readonly #alive = new Set<GatewayProcess>();
  readonly #registry: Registry;
  readonly #deaths: Counter;
  /** Counters of the processes that have ended. */
  #ended: ProcessMetrics = [];
  #silent = 0;
  #routes: RoutesSource = { text: '', files: new Map() };
  #watch: RoutesWatch | undefined;
  #authzPort = 0;
  /** Slots that have not listened yet; undefined until the first one has. */
  #awaited: Set<Slot> | undefined;
  #isReplacing = false;
  #isStopping = false;

  constructor(
    private readonly options: ProcessesOptions,
    private readonly logger: Logger,
  ) {
    this.#slots = Array.from({ length: options.count }, (_, i) => ({ n: i + 1, deaths: 0 }));
    this.#registry = createRegistry('gateway', options.version);
    const registers = [this.#registry];
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({ name, help, registers, collect: collectOf(value) });
    gauge('latchkey_gateway_processes', 'Processes that listen', () => this.#listening.length);
    gauge('latchkey_gateway_processes_silent', 'Processes whose gauges this scrape lacks', () => this.#silent);
    gauge(RELOAD_FAILED.name, RELOAD_FAILED.help, () => Number(this.#watch?.fault !== undefined));
    const [name, help] = ['latchkey_gateway_process_deaths_total', 'Processes that ended without having been told to'];
    this.#deaths = new Counter({ name, help, registers });
  }

  get #listening(): GatewayProcess[] {
    return [...this.#alive].filter(({ state }) => state === 'listening');
  }

  /**
   * Resolves once a process listens. The first one starts alone, so that what is wrong is logged once: if it ends before
   * it listens, the primary exits too.
   * @throws RoutesFileError
   */
  async start(): Promise<void> {
    const { options } = this;
    const source = readRoutes(options.routesFile);
    const table = parseRoutes(source.text, options.routesFile, process.env, source.files);
    this.#routes = source;
    this.#watch = new RoutesWatch(source, table, {
      file: options.routesFile,
      env: process.env,
      use: (next) => this.#useRoutes(next),
      logger: this.logger,
    });
    this.#authzPort = options.authzPort || (await freePort(options.opsHost));
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    // JSON has no NaN, which some gauges are at times.
    cluster.setupPrimary({ serialization: 'advanced' });
    const [first, ...others] = this.#slots as [Slot, ...Slot[]];
    const { listening, exited } = this.#spawn(first);
    const exit = await listening.then(
      () => undefined,
      () => exited,
    );
    // A process that exits by itself has logged why.
    if (exit?.signal === null) process.exit(1);
    if (exit) throw new Error(`the first process was ended by ${exit.signal} before it listened`);
    this.#awaited = new Set(others);
    for (const slot of others) this.#spawnLater(slot);
    this.#watch.start();
    setTimeout(() => void this.#balance(), BALANCE_MS).unref();
  }

  /** Again and again: callers of a busy process come to the others. */
  async #balance(): Promise<void> {
    const asked = this.#listening.map(async (running) => ({ running, load: await running.load() }));
    const known = (await Promise.all(asked)).flatMap(({ running, load }) => (load ? [{ running, load }] : []));
    const surplus = surplusOf(known.map(({ load }) => load));
    await Promise.all(known.map(({ running }, i) => running.closeSurplus(surplus[i]!)));
    if (!this.#isStopping) setTimeout(() => void this.#balance(), BALANCE_MS).unref();
  }

  /**
   * Reads the routes file, and the files that it names, at once: for all processes or, when one is invalid, for none. Each
   * process reads those of its settings.
   */
  async reload(): Promise<Reloaded> {
    const reloaded = await this.#watch!.reload();
    const reasons = await Promise.all(this.#listening.map((running) => running.reloadSettings()));
    return withSettings(
      reloaded,
      reasons.find((reason) => reason !== undefined),
    );
  }

  /** @throws when a process that listens has not taken them in time: it takes them once it goes on */
  async #useRoutes(source: RoutesSource): Promise<void> {
    this.#routes = source;
    const late = await Promise.all(
      [...this.#alive].map(async (running) => ((await running.takeRoutes(source)) ? [] : [running.pid])),
    );
    const pids = late.flat();
    if (pids.length > 0) throw new Error(`no response from the gateway process ${pids.join(', ')}`);
  }

  /** Replaces the processes one after the other, each once its replacement holds a lease and listens. */
  async replace(): Promise<void> {
    if (this.#isReplacing || this.#isStopping) return;
    this.#isReplacing = true;
    for (const slot of this.#slots) {
      const reason = await this.#replaceOne(slot);
      if (this.#isStopping) return;
      if (reason === undefined) continue;
      const fields = { process: slot.n, reason };
      this.logger.error(fields, 'replacing the processes failed; those that were not replaced go on');
      this.#isReplacing = false;
      return;
    }
    this.#isReplacing = false;
    this.logger.info({ processes: this.#slots.length }, 'processes replaced');
  }

  /** @returns why the new process cannot take over; then it is ended, and the old one goes on */
  async #replaceOne(slot: Slot): Promise<string | undefined> {
    clearTimeout(slot.timer);
    let next: GatewayProcess;
    try {
      next = this.#spawn(slot, 'next');
    } catch (error) {
      if (!slot.current) this.#spawnLater(slot);
      return `the new process cannot be started: ${(error as Error).message}`;
    }
    const ms = this.options.replacementMs ?? REPLACEMENT_MS;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<string>((resolve) => {
      const reason = `the new process held no lease and did not listen within ${ms} ms`;
      timer = setTimeout(resolve, ms, reason);
    });
    const failed = next.listening.then(
      () => undefined,
      ({ message }: Error) => `the new process did not listen: ${message}`,
    );
    const reason = await Promise.race([failed, late]);
    clearTimeout(timer);
    slot.next = undefined;
    if (this.#isStopping) return reason;
    if (reason === undefined) {
      const old = slot.current;
      [slot.current, slot.deaths] = [next, 0];
      await old?.retire();
    } else {
      void next.stop();
      if (!slot.current) this.#spawnLater(slot);
    }
    return reason;
  }

  /** Stops all processes in parallel, each in order. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#watch?.stop();
    for (const { timer } of this.#slots) clearTimeout(timer);
    await Promise.all([...this.#alive].map((running) => running.stop()));
  }

  /** @throws when the system starts no process, for lack of memory, say */
  #spawn(slot: Slot, as: 'current' | 'next' = 'current'): GatewayProcess {
    const { options } = this;
    const awaitLease = as === 'next' || this.#listening.length > 0;
    const start = { n: slot.n, routes: this.#routes, authzPort: this.#authzPort, awaitLease };
    const worker = (options.fork ?? cluster.fork)();
    const handlers = {
      metrics: () => this.#metrics(),
      reload: () => this.reload(),
      fault: () => this.#watch?.fault,
    };
    const running = new GatewayProcess(worker, start, handlers, options.stopMs, this.logger);
    this.#alive.add(running);
    slot[as] = running;
    running.listening.then(
      (addresses) => {
        if (this.#awaited?.delete(slot) && this.#awaited.size === 0)
          this.logger.info(
            { version: options.version, ...addresses, processes: this.#slots.length },
            'gateway listening',
          );
      },
      () => undefined,
    );
    void running.exited.then(({ exitCode, signal }) => {
      this.#alive.delete(running);
      this.#ended = addUp([this.#ended, running.counts]).sums;
      if (running !== slot.current || this.#isStopping || !this.#awaited) return;
      const { pid, livedMs } = running;
      this.#onDeath(slot, livedMs, { pid, exitCode, signal }, 'a gateway process ended unexpectedly');
    });
    return running;
  }

  /** Starts a process in a while. One that cannot be started is as dead as one that has ended at once. */
  #spawnLater(slot: Slot, waitMs = 0): void {
    if (this.#isStopping) return;
    slot.timer = setTimeout(() => {
      try {
        this.#spawn(slot);
      } catch (error) {
        this.#onDeath(slot, 0, { reason: (error as Error).message }, 'a gateway process cannot be started');
      }
    }, waitMs);
  }

  #onDeath(slot: Slot, livedMs: number, why: object, message: string): void {
    slot.current = undefined;
    slot.deaths = livedMs < LIVED_MS ? slot.deaths + 1 : 1;
    this.#deaths.inc();
    const waitMs = pauseMs(slot.deaths);
    this.logger.error({ process: slot.n, ...why, waitMs }, `${message}; starting another one`);
    // Its replacement may be on its way.
    if (!slot.next) this.#spawnLater(slot, waitMs);
  }

  /** The metrics of all processes, added up; of one that does not respond its counters, as last collected. */
  async #metrics(): Promise<string> {
    // Read before the wait: what ends meanwhile is counted once.
    const ended = this.#ended;
    let silent = 0;
    const serving = [...this.#alive].filter(({ state }) => state !== 'starting');
    const collected = serving.map(async (running) => {
      // One that ends holds no lease any more, and serves nobody who asks now.
      if (running.state === 'ending') return running.counts;
      const metrics = await running.collect();
      if (!metrics) silent++;
      return metrics ?? running.counts;
    });
    const all = await Promise.all(collected);
    this.#silent = silent;
    const own = (await this.#registry.getMetricsAsJSON())
      .filter(({ name }) => /^(process|latchkey)_/.test(name))
      // The start of the gateway is the primary's.
      .map((metric) => (metric.aggregator === 'omit' ? { ...metric, aggregator: 'first' as const } : metric));
    return addUp([own, ended, ...all]).text();
  }
}

const collectOf = (value: () => number) =>
  function collect(this: Gauge) {
    this.set(value());
  };
