import type { DenialLine, DenialReason, UsageBatch, UsageBatchEvent } from '@latchkey/contracts';
import type { Clock } from './types.js';
import { UsageDenials } from './usage-denials.js';
import { UsageTally } from './usage-tally.js';
import { usageText } from './usage-text.js';

/** Counts of one batch; signing adds the verifier. */
export type UsageCounts = Omit<UsageBatch, 'verifier' | 'tickets'>;

/** A signed batch: sent again, it is identical. */
interface Signed {
  readonly event: UsageBatchEvent;
  readonly sequence: number;
  readonly lines: number;
}

/** Receives the batches: in this repository a Redis stream that jobs reads. */
export interface UsageSink {
  /** Rejects when the batch was not taken, or possibly not. */
  readonly send: (event: UsageBatchEvent) => Promise<void>;
  /** Calls back whenever the sink is available again and can have lost batches that it took. */
  readonly onReturn: (callback: () => void) => void;
}

export interface UsageReporterDeps {
  /** Returns undefined while there is no key. */
  readonly sign: (batch: UsageCounts) => UsageBatchEvent | undefined;
  readonly sink: UsageSink;
  readonly clock: Clock;
  /** A batch was not taken; it is kept and sent again. */
  readonly onFailure?: (error: Error, sequence: number) => void;
}

export interface UsageReporterOptions {
  /** How often counts are sent, in milliseconds. Default 1 000. */
  readonly intervalMs?: number;
}

const LINES_PER_BATCH_MAX = 5_000;
const LINES_MAX = 50_000;
const LINES_PER_TOKEN_MAX = 200;
/** How long sent batches are kept, and how many lines of them: far longer than jobs takes to read them. */
const KEPT_MS = 30_000;
const KEPT_LINES_MAX = 20_000;

/**
 * Counts every verdict and sends the counts, signed, at least every second. A batch is kept and sent again, unchanged,
 * until the sink has taken it, and once more when the sink is available again and can have lost it; a batch that arrives
 * twice is counted once, by its sequence. While the sink is unavailable, counts accumulate in memory; a bound drops the
 * callers' details first; whatever else is lost is counted in `lost` and `denialsDropped`.
 */
export class UsageReporter {
  readonly #deps: UsageReporterDeps;
  readonly #intervalMs: number;
  readonly #tally = new UsageTally({ linesMax: LINES_MAX, linesPerTokenMax: LINES_PER_TOKEN_MAX });
  readonly #denials = new UsageDenials();
  #sequence = 0;
  #unsigned: UsageCounts | undefined;
  #unsent: Signed | undefined;
  /** Batches taken, oldest first: sent again when the sink can have lost them. */
  #taken: { batch: Signed; atMs: number }[] = [];
  #again: Signed[] = [];
  #sending: Promise<boolean> | undefined;
  #cancelTimer: () => void = () => undefined;
  batchesSent = 0;
  batchesFailed = 0;
  /** Denials dropped because of a bound. */
  denialsDropped = 0;

  constructor(deps: UsageReporterDeps, { intervalMs = 1_000 }: UsageReporterOptions = {}) {
    this.#deps = deps;
    this.#intervalMs = intervalMs;
  }

  start(): void {
    const { clock, sink } = this.#deps;
    sink.onReturn(() => {
      this.#forgetOld();
      this.#again = this.#taken.map(({ batch }) => batch);
    });
    const again = () => {
      this.#cancelTimer = clock.after(this.#intervalMs, () => void this.flush().then(again));
    };
    again();
  }

  /** Verdicts not counted because of a bound. */
  get lost(): number {
    return this.#tally.lost;
  }

  /** One verdict on a token. `userAgent` is made fit for a batch; `route` and `ip` must be, see `usageText`. */
  count(tokenId: string, route: string, status: 'allowed' | DenialReason, ip: string, userAgent: string): void {
    this.#tally.add(tokenId, route, status, ip, usageText('userAgent', userAgent), this.#deps.clock.wallMs());
  }

  /** Records a denial, so that it can be looked up by its requestId. Its texts can be any: they are made fit for a batch. */
  deny({ requestId, route, method, ip, ...denial }: Omit<DenialLine, 'atMs'>): void {
    this.#denials.add({
      ...denial,
      atMs: this.#deps.clock.wallMs(),
      requestId: usageText('requestId', requestId),
      route: usageText('route', route),
      method: usageText('method', method),
      ip: usageText('ip', ip),
    });
  }

  /** Sends all counts. True when the sink has taken them; one flush at a time. */
  flush(): Promise<boolean> {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
    return this.#sending;
  }

  /**
   * The last flush; retries until it succeeds or `timeoutMs` has passed (default 3 000).
   * @returns false when the counts since the last batch are lost
   */
  async stop(timeoutMs = 3_000): Promise<boolean> {
    const { clock } = this.#deps;
    this.#cancelTimer();
    const until = clock.monotonicMs() + timeoutMs;
    await this.#sending;
    while (!(await this.flush())) {
      if (clock.monotonicMs() >= until) return false;
      await new Promise<void>((resolve) => clock.after(100, resolve));
    }
    return true;
  }

  async #sendAll(): Promise<boolean> {
    for (;;) {
      const repeated = this.#again[0];
      if (repeated) {
        if (!(await this.#send(repeated))) return false;
        if (this.#again[0] === repeated) this.#again.shift();
        continue;
      }
      this.#unsigned ??= this.#unsent ? undefined : this.#nextBatch();
      if (this.#unsigned) {
        const event = this.#deps.sign(this.#unsigned);
        if (!event) return false;
        this.#unsent = { event, sequence: this.#unsigned.sequence, lines: this.#unsigned.lines.length };
        this.#unsigned = undefined;
      }
      if (!this.#unsent) return true;
      if (!(await this.#send(this.#unsent))) return false;
      this.#taken.push({ batch: this.#unsent, atMs: this.#deps.clock.monotonicMs() });
      this.#forgetOld();
      this.#unsent = undefined;
    }
  }

  #forgetOld(): void {
    const oldestMs = this.#deps.clock.monotonicMs() - KEPT_MS;
    let lines = 0;
    const lastOld = this.#taken.findLastIndex(({ batch, atMs }) => {
      lines += batch.lines;
      return atMs < oldestMs || lines > KEPT_LINES_MAX;
    });
    this.#taken.splice(0, lastOld + 1);
  }

  #nextBatch(): UsageCounts | undefined {
    if (this.#tally.size === 0 && this.#denials.size === 0) return undefined;
    const lines = this.#tally.take(LINES_PER_BATCH_MAX);
    const { denials, dropped } = this.#denials.take();
    this.denialsDropped += dropped;
    return { sequence: ++this.#sequence, lines, denials, denialsDropped: dropped };
  }

  async #send({ event, sequence }: Signed): Promise<boolean> {
    const { sink, onFailure } = this.#deps;
    try {
      await sink.send(event);
      this.batchesSent++;
      return true;
    } catch (error) {
      this.batchesFailed++;
      onFailure?.(error as Error, sequence);
      return false;
    }
  }
}
