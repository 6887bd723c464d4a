import { type DenialReason, REDIS, type UsageBatch, type UsageBatchEvent, usageFields } from '@latchkey/contracts';
import type { Clock, Logger } from '@latchkey/runtime';
import { hideSecrets } from '@latchkey/token-format';
import type { Redis } from 'ioredis';
import type { Accounting, Inquiry } from '../check/index.js';
import { Denials } from './denials.js';
import { Tally } from './tally.js';

/** What was counted; who counted it is said when it is signed. */
type Counted = Omit<UsageBatch, 'verifier' | 'tickets'>;

/** A batch as it was signed: sent again, it is the very same. */
interface Signed {
  readonly event: UsageBatchEvent;
  readonly sequence: number;
  readonly lines: number;
}

export interface UsageParts {
  /** Undefined while there is no key to sign with. */
  readonly sign: (batch: Counted) => UsageBatchEvent | undefined;
  readonly redis: Pick<Redis, 'xadd' | 'on'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default 1 000. */
  readonly intervalMs?: number;
}

const LINES_PER_BATCH_MAX = 5_000;
const LINES_MAX = 50_000;
const LINES_PER_TOKEN_MAX = 200;
/** Batches that Redis has taken are kept for so long, and so many lines of them: far longer than jobs takes to fetch them. */
const KEPT_MS = 30_000;
const KEPT_LINES_MAX = 20_000;

/**
 * Counts every verdict and sends the counts over Redis to jobs, at least every second. A batch is kept and sent again,
 * as it was, until Redis has taken it, and once more when a Redis comes back that may have lost it; a batch that arrives
 * twice is counted once, by its sequence. While Redis is away counts go on in memory, and what a bound costs is the
 * callers' details first.
 */
export class Usage implements Accounting {
  readonly #tally = new Tally({ linesMax: LINES_MAX, linesPerTokenMax: LINES_PER_TOKEN_MAX });
  readonly #denials = new Denials();
  #sequence = 0;
  #unsigned: Counted | undefined;
  #unsent: Signed | undefined;
  /** Taken by Redis, oldest first; what of it a Redis that came back may not have any more is sent again. */
  #taken: { batch: Signed; atMs: number }[] = [];
  #again: Signed[] = [];
  #sending: Promise<boolean> | undefined;
  #cancelTimer: () => void = () => undefined;
  batchesSent = 0;
  batchesFailed = 0;
  /** Denials that a bound left no room for. */
  denialsDropped = 0;

  constructor(private readonly parts: UsageParts) {}

  start(): void {
    const { clock, redis, intervalMs = 1_000 } = this.parts;
    redis.on('ready', () => {
      this.#forgetOld();
      this.#again = this.#taken.map(({ batch }) => batch);
    });
    const again = () => {
      this.#cancelTimer = clock.after(intervalMs, () => void this.flush().then(again));
    };
    again();
  }

  /** Verdicts that no bound left room for. */
  get lost(): number {
    return this.#tally.lost;
  }

  count(tokenId: string, route: string, status: 'allowed' | DenialReason, ip: string, userAgent: string): void {
    this.#tally.add(tokenId, route, status, ip, hideSecrets(userAgent).slice(0, 200), this.parts.clock.wallMs());
  }

  deny({ requestId, route, method, ip }: Inquiry, reason: DenialReason, tokenId: string | undefined): void {
    const atMs = this.parts.clock.wallMs();
    this.#denials.add({ requestId, atMs, reason, tokenId: tokenId ?? null, route, method, ip });
  }

  /** Sends all there is. True when Redis has taken it; one flush at a time. */
  flush(): Promise<boolean> {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
    return this.#sending;
  }

  /** The last flush; tries until it succeeds or `patienceMs` is over. */
  async stop(patienceMs = 3_000): Promise<void> {
    this.#cancelTimer();
    const until = this.parts.clock.monotonicMs() + patienceMs;
    await this.#sending;
    while (!(await this.flush())) {
      if (this.parts.clock.monotonicMs() >= until) {
        this.parts.logger.error('usage since the last batch is lost: Redis did not take it before the stop');
        return;
      }
      await new Promise<void>((resolve) => this.parts.clock.after(100, resolve));
    }
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
        const event = this.parts.sign(this.#unsigned);
        if (!event) return false;
        this.#unsent = { event, sequence: this.#unsigned.sequence, lines: this.#unsigned.lines.length };
        this.#unsigned = undefined;
      }
      if (!this.#unsent) return true;
      if (!(await this.#send(this.#unsent))) return false;
      this.#taken.push({ batch: this.#unsent, atMs: this.parts.clock.monotonicMs() });
      this.#forgetOld();
      this.#unsent = undefined;
    }
  }

  #forgetOld(): void {
    const oldestMs = this.parts.clock.monotonicMs() - KEPT_MS;
    let lines = 0;
    const lastOld = this.#taken.findLastIndex(({ batch, atMs }) => {
      lines += batch.lines;
      return atMs < oldestMs || lines > KEPT_LINES_MAX;
    });
    this.#taken.splice(0, lastOld + 1);
  }

  #nextBatch(): Counted | undefined {
    if (this.#tally.size === 0 && this.#denials.size === 0) return undefined;
    const lines = this.#tally.take(LINES_PER_BATCH_MAX);
    const { denials, dropped } = this.#denials.take();
    this.denialsDropped += dropped;
    return { sequence: ++this.#sequence, lines, denials, denialsDropped: dropped };
  }

  async #send({ event, sequence }: Signed): Promise<boolean> {
    const { usage, usageStreamLengthMax } = REDIS;
    try {
      await this.parts.redis.xadd(usage, 'MAXLEN', '~', usageStreamLengthMax, '*', ...usageFields(event));
      this.batchesSent++;
      return true;
    } catch (error) {
      this.batchesFailed++;
      this.parts.logger.debug({ reason: (error as Error).message, sequence }, 'usage batch not taken');
      return false;
    }
  }
}
