import type { DenialLine, DenialReason, UsageBatch, UsageBatchEvent } from '@latchkey/contracts';
import { hideSecrets } from '@latchkey/token-format';
import type { Clock } from './types.js';
import { UsageDenials } from './usage-denials.js';
import { UsageTally } from './usage-tally.js';

/** What was counted; who counted it is said when it is signed. */
export type UsageCounted = Omit<UsageBatch, 'verifier' | 'tickets'>;

/** A batch as it was signed: sent again, it is the very same. */
interface Signed {
  readonly event: UsageBatchEvent;
  readonly sequence: number;
  readonly lines: number;
}

/** What takes the batches: a stream of Redis that jobs reads, in this repository. */
export interface UsageSink {
  /** Rejects when the batch was not taken, or may not have been. */
  readonly send: (event: UsageBatchEvent) => Promise<void>;
  /** Calls back whenever the sink has come back and may have lost what it took. */
  readonly onReturn: (callback: () => void) => void;
}

export interface UsageReporterDeps {
  /** Undefined while there is no key to sign with. */
  readonly sign: (batch: UsageCounted) => UsageBatchEvent | undefined;
  readonly sink: UsageSink;
  readonly clock: Clock;
  /** A batch was not taken, and is kept. */
  readonly onFailure?: (error: Error, sequence: number) => void;
}

export interface UsageReporterOptions {
  /** How often counts are sent, in milliseconds. Default 1 000. */
  readonly intervalMs?: number;
}

const LINES_PER_BATCH_MAX = 5_000;
const LINES_MAX = 50_000;
const LINES_PER_TOKEN_MAX = 200;
/** Batches that were taken are kept for so long, and so many lines of them: far longer than jobs takes to fetch them. */
const KEPT_MS = 30_000;
const KEPT_LINES_MAX = 20_000;

/**
 * Counts every verdict and sends the counts, signed, at least every second. A batch is kept and sent again, as it was,
 * until the sink has taken it, and once more when a sink comes back that may have lost it; a batch that arrives twice is
 * counted once, by its sequence. While the sink is unavailable counts go on in memory, and what a bound costs is the
 * callers' details first; what is lost after all is counted in `lost` and `denialsDropped`.
 */
export class UsageReporter {
  readonly #deps: UsageReporterDeps;
  readonly #intervalMs: number;
  readonly #tally = new UsageTally({ linesMax: LINES_MAX, linesPerTokenMax: LINES_PER_TOKEN_MAX });
  readonly #denials = new UsageDenials();
  #sequence = 0;
  #unsigned: UsageCounted | undefined;
  #unsent: Signed | undefined;
  /** Taken, oldest first; what of it a sink that came back may not have any more is sent again. */
  #taken: { batch: Signed; atMs: number }[] = [];
  #again: Signed[] = [];
  #sending: Promise<boolean> | undefined;
  #cancelTimer: () => void = () => undefined;
  batchesSent = 0;
  batchesFailed = 0;
  /** Denials that a bound left no room for. */
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

  /** Verdicts that no bound left room for. */
  get lost(): number {
    return this.#tally.lost;
  }

  /** One verdict on a token. Secrets in `userAgent` are hidden, and it is cut at 200 characters. */
  count(tokenId: string, route: string, status: 'allowed' | DenialReason, ip: string, userAgent: string): void {
    this.#tally.add(tokenId, route, status, ip, hideSecrets(userAgent).slice(0, 200), this.#deps.clock.wallMs());
  }

  /** Keeps a denial, so that it can be looked up by its requestId. */
  deny(denial: Omit<DenialLine, 'atMs'>): void {
    this.#denials.add({ ...denial, atMs: this.#deps.clock.wallMs() });
  }

  /** Sends all there is. True when it has been taken; one flush at a time. */
  flush(): Promise<boolean> {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
    return this.#sending;
  }

  /**
   * The last flush; tries until it succeeds or `patienceMs` is over.
   * @returns false when what was counted since the last batch is lost
   */
  async stop(patienceMs = 3_000): Promise<boolean> {
    const { clock } = this.#deps;
    this.#cancelTimer();
    const until = clock.monotonicMs() + patienceMs;
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

  #nextBatch(): UsageCounted | undefined {
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
