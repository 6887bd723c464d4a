import type { Clock, Logger } from '@latchkey/runtime';
import type { LedgerEntry } from './entry.js';
import { ledgerKey, NO_PLACE, type Place, type State } from './format.js';
import type { Asked, LedgerComparison, Opened, Requests } from './thread.js';
import { isSound } from './vouching.js';

const LOGGED_EVERY_MS = 60_000;
const NEVER = { settledAt: null, peers: [] };

/** Reading or writing the ledger failed. */
export class LedgerFailure extends Error {
  override name = 'LedgerFailure';
}

export interface OwnLedgerDeps {
  /** LEDGER_KEY. */
  readonly secret: string;
  /**
   * Its folder, the identity of the database, and its time: every time in a ledger is the database's, so that they can be
   * compared.
   */
  readonly folder: () => Promise<{ folder: string; database: string; at: Date }>;
  readonly thread: Asked;
  readonly newId: () => string;
  readonly logger: Logger;
  readonly clock: Pick<Clock, 'monotonicMs'>;
}

/**
 * The ledger that this process writes: its stream, and whether writing works. Every method throws LedgerFailure,
 * which has been recorded, when the disk fails; the next call tries again.
 */
export class OwnLedger {
  readonly #deps: OwnLedgerDeps;
  readonly #key: string;
  #stream = '';
  #ledger: string | undefined;
  #folder: string | undefined;
  #database = '';
  #begunAt = '';
  #settled: Pick<State, 'settledAt' | 'peers'> = NEVER;
  #place: Place = NO_PLACE;
  #isWhole = false;
  #isSound = false;
  #lastLedger: string | undefined;
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

  /** Whether nothing was wrong with it then, nor with one that the database does not know: copies may be left to be adopted. */
  get isSound(): boolean {
    return this.#isSound;
  }

  /** The last that was open. */
  get lastLedger(): string | undefined {
    return this.#lastLedger;
  }

  /** Whether nothing was wrong, when they were compared last, with it or with one that the database does not know. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** The stream of this process. Another one after a write that failed. */
  get stream(): string {
    return this.#stream;
  }

  /** How far that reaches. */
  get place(): Place {
    return this.#place;
  }

  /**
   * Opens it, or begins it where there is none. Without it the service goes on.
   * @param isMoved another database may be there now, or the same one on another server: then another stream is begun, in the
   *   ledger of that server
   * @returns whether it is open
   */
  async open(isMoved = false): Promise<boolean> {
    if (this.#ledger !== undefined && !isMoved) return true;
    const { folder, database, at } = await this.#deps.folder();
    if (this.#ledger !== undefined && folder === this.#folder && database === this.#database) return true;
    try {
      this.#ledger = undefined;
      this.#folder = folder;
      this.#database = database;
      const given = { folder, key: this.#key, database, ...this.#ids(at) };
      await this.#go(await this.#ask('open', given), at);
      return true;
    } catch (error) {
      if (error instanceof LedgerFailure) return false;
      throw error;
    }
  }

  #ids(at: Date): { ledger: string; stream: string; at: string } {
    return { ledger: this.#deps.newId(), stream: this.#deps.newId(), at: at.toISOString() };
  }

  /** Goes on with what is open now. A new stream is begun at once, so that later ones name it. */
  async #go({ ledger, stream }: Opened, at: Date): Promise<void> {
    if (stream !== this.#stream) {
      this.#begunAt = at.toISOString();
      this.#settled = NEVER;
      this.#place = await this.#ask('append', { entries: [] });
      await this.writeState(at, null);
      this.#stream = stream;
      // Another one has to be compared before it vouches.
      if (ledger !== this.#lastLedger) this.#isWhole = this.#isSound = false;
      this.#lastLedger = ledger;
      this.#deps.logger.info({ folder: this.#folder, ledger }, 'revocations are also written to this ledger');
    }
    this.#ledger = ledger;
  }

  /** Appends and syncs; resolves when it is on disk. */
  async append(entries: readonly LedgerEntry[]): Promise<void> {
    if (entries.length === 0) return;
    this.#place = await this.#ask('append', { entries });
    this.counters.entries += entries.length;
  }

  /** Writes that the stream is alive. @param peers other ledgers that are, in a settled history; null: it is not settled */
  async writeState(at: Date, peers: readonly string[] | null): Promise<void> {
    if (peers) this.#settled = { settledAt: at.toISOString(), peers: [...peers] };
    await this.#ask('state', {
      ...this.#settled,
      begunAt: this.#begunAt,
      at: at.toISOString(),
      database: this.#database,
    });
  }

  /** What this ledger, and those beside it, contain behind the marks. @returns null when it cannot be opened */
  async compare(given: Omit<Requests['compare'][0], 'key' | 'database'>): Promise<LedgerComparison[] | null> {
    this.#isWhole = this.#isSound = false;
    if (!(await this.open())) return null;
    const ledgers = await this.#ask('compare', { ...given, key: this.#key, database: this.#database });
    // What is wrong with another one that the database knows is no concern of the own one.
    const matters = ledgers.filter(({ isUncertain, isKnown, isOwn, faults }) => {
      return !(isUncertain || (isKnown && !isOwn && faults.length > 0));
    });
    this.#isSound = matters.every((one) => isSound(one) || (one.isKnown && !one.isOwn));
    // Copies are to be adopted.
    this.#isWhole = matters.every(
      ({ faults, isOriginal, isComplete }) => faults.length === 0 && isOriginal && !isComplete,
    );
    // Another process may have done it.
    if (this.#isWhole && this.#failed === 'adopt') this.#succeed();
    return ledgers;
  }

  /** Of those that were compared, this one, or each, may lack what was revoked last. @param ledger its id; null: each */
  async distrust(ledger: string | null): Promise<void> {
    await this.#ask('distrust', { ledger });
  }

  /**
   * What it lacked has been decided on: it vouches again, or a new one is begun in its place.
   * @param isAll also ledgers beside it that the database does not know
   */
  async adopt(isAll: boolean): Promise<void> {
    this.#isWhole = false;
    if (!(await this.open())) return;
    const { at } = await this.#deps.folder();
    await this.#go(await this.#ask('adopt', { ...this.#ids(at), isAll }), at);
    this.#isWhole = this.#isSound = true;
    if (this.#failed === 'distrust') this.#succeed();
  }

  async prune(before: number): Promise<void> {
    await this.#ask('prune', { before });
  }

  stop(): Promise<void> {
    return this.#deps.thread.stop();
  }

  async #ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    try {
      const result = await this.#deps.thread.ask(what, given);
      if (this.#failed === what) this.#succeed();
      return result;
    } catch (error) {
      this.#failed = what;
      this.#fail((error as Error).message);
      // Its folder may be another one by now: it is opened again.
      this.#ledger = undefined;
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
