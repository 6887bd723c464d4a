import { type Clock, type Logger, newId } from '@latchkey/runtime';
import type { LedgerEntry } from './entry.js';
import { ledgerKey, NO_PLACE, type Place } from './format.js';
import { type LedgerComparison, LedgerThread, type Requests, ThreadEnded } from './thread.js';

const LOGGED_EVERY_MS = 60_000;

/** Reading or writing the ledger failed. */
export class LedgerFailure extends Error {
  override name = 'LedgerFailure';
}

export interface OwnLedgerDeps {
  /** LEDGER_KEY. */
  readonly secret: string;
  /** Its folder. */
  readonly folder: () => Promise<string>;
  readonly logger: Logger;
  readonly clock: Pick<Clock, 'monotonicMs'>;
}

/**
 * The ledger that this process writes: its thread, its stream, and whether that works. Every method throws LedgerFailure,
 * which has been recorded, when the disk fails; the next call tries again.
 */
export class OwnLedger {
  readonly #deps: OwnLedgerDeps;
  readonly #thread = new LedgerThread();
  readonly #key: string;
  #stream = newId();
  #ledger: string | undefined;
  #place: Place = NO_PLACE;
  #failure: string | null = null;
  /** What failed: only its success shows that it works again. */
  #failed: keyof Requests | undefined;
  #loggedAtMs = Number.NEGATIVE_INFINITY;
  readonly counters = { entries: 0, failures: 0 };

  constructor(deps: OwnLedgerDeps) {
    this.#deps = deps;
    this.#key = ledgerKey(deps.secret);
  }

  /** Why writing fails; null: it works. */
  get failure(): string | null {
    return this.#failure;
  }

  /** Its id; undefined: it is not open. */
  get ledger(): string | undefined {
    return this.#ledger;
  }

  /** The stream of this process. Another one once the thread had to be replaced. */
  get stream(): string {
    return this.#stream;
  }

  /** How far that reaches. */
  get place(): Place {
    return this.#place;
  }

  /** Opens it, or begins it where there is none. Without it the service goes on. @returns whether it is open */
  async open(): Promise<boolean> {
    if (this.#ledger !== undefined) return true;
    const folder = await this.#deps.folder();
    try {
      const given = { folder, key: this.#key, ledger: newId(), stream: this.#stream };
      const { ledger } = await this.#ask('open', given);
      // Begins the stream, so that later ones name it.
      this.#place = await this.#ask('append', { entries: [] });
      await this.#ask('state', { at: new Date().toISOString(), peers: [], ended: false });
      this.#ledger = ledger;
      this.#deps.logger.info({ folder, ledger }, 'revocations are also written to this ledger');
      return true;
    } catch (error) {
      if (error instanceof LedgerFailure) return false;
      throw error;
    }
  }

  /** Appends and syncs; resolves when it is on disk. */
  async append(entries: readonly LedgerEntry[]): Promise<void> {
    if (entries.length === 0) return;
    this.#place = await this.#ask('append', { entries });
    this.counters.entries += entries.length;
  }

  /** Writes that the stream is alive, or has ended in order. @param peers other ledgers that are alive */
  async writeState(at: Date, peers: readonly string[], ended = false): Promise<void> {
    await this.#ask('state', { at: at.toISOString(), peers: [...peers], ended });
  }

  /** What this ledger, and those beside it, contain behind the marks. */
  compare(given: Omit<Requests['compare'][0], 'key'>): Promise<LedgerComparison[]> {
    return this.#ask('compare', { ...given, key: this.#key });
  }

  async adopt(): Promise<void> {
    await this.#ask('adopt', {});
  }

  async prune(before: number): Promise<void> {
    await this.#ask('prune', { before });
  }

  stop(): Promise<void> {
    return this.#thread.stop();
  }

  async #ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    try {
      const result = await this.#thread.ask(what, given);
      if (this.#failed === what) this.#succeed();
      return result;
    } catch (error) {
      this.#failed = what;
      this.#fail((error as Error).message);
      if (error instanceof ThreadEnded) {
        this.#ledger = undefined;
        this.#stream = newId();
      }
      throw new LedgerFailure((error as Error).message, { cause: error });
    }
  }

  #succeed(): void {
    if (this.#failure !== null) this.#deps.logger.info('the ledger is written again');
    this.#failure = null;
    this.#failed = undefined;
  }

  #fail(reason: string): void {
    const { clock, logger } = this.#deps;
    this.counters.failures++;
    const nowMs = clock.monotonicMs();
    if (this.#failure === null || nowMs - this.#loggedAtMs >= LOGGED_EVERY_MS) {
      this.#loggedAtMs = nowMs;
      logger.error(
        { reason },
        'writing the ledger failed, retrying: a backup that is restored now could undo revocations. Check LEDGER_DIR and its disk.',
      );
    }
    this.#failure = reason;
  }
}
