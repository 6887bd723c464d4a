import path from 'node:path';
import { type Clock, type Logger, newId } from '@latchkey/runtime';
import { type ComparisonDeps, compareLedgers, type LedgerFindings, nothingRead } from './comparison.js';
import { entryOf } from './entry.js';
import { LedgerFailure, OwnLedger } from './own-ledger.js';
import { type Standing, standingOf } from './standing.js';
import type { FollowRow, IgnoredLedger } from './store.js';
import type { Asked } from './thread.js';

/** How often the database is read, and so how far a ledger is behind at most. */
const FOLLOW_MS = 1_000;
/** How often the mark and the state are written while nothing happens. */
const ALIVE_MS = 15_000;
/** Longest that a change waits for its ledger: a disk that does not respond delays no revocation further. */
const WAIT_MS = 5_000;
const EVENTS_MAX = 20_000;
/** Events of transactions that are committed later have earlier times. */
const LATE_MS = 24 * 3_600_000;
const DAY_MS = 24 * 3_600_000;
/** In another history, events are read again from so long before the last reading. */
const OVERLAP_MS = 10 * 60_000;
const PRUNE_MS = 3_600_000;
/** A process that has not read the database for longer has not followed a history to its end. */
const BLIND_MAX_MS = 60_000;

export type LedgerOutcome = 'written' | 'failed' | 'off';

/** That this process was alive, by the time of the database; as in a `State`. */
interface Alive {
  readonly at: Date;
  /** Null: in a history that is not settled. */
  readonly peers: readonly string[] | null;
}

/** What a follower needs. */
export interface FollowerDeps extends ComparisonDeps {
  /** Where the ledger is, and LEDGER_KEY; undefined: there is none. */
  readonly place: { readonly dir: string; readonly secret: string } | undefined;
  /** What reads and writes the files. */
  readonly thread: Asked;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Makes ids of streams and ledgers. Default: UUIDv7. */
  readonly newId?: () => string;
}

/**
 * Follows the audit events of every replica into the ledger of this process, at most a second behind, and knows what a
 * comparison of a history with the ledgers depends on: how far this process has followed.
 */
export class LedgerFollower {
  readonly #deps: FollowerDeps;
  /** Undefined: none is configured. */
  readonly #own: OwnLedger | undefined;
  /** Whether the last round has read and written everything. */
  #isUpToDate = false;
  #standing: Standing | undefined;
  /** The history in which the cursor holds. */
  #history = '';
  #cursor = '0';
  /** When the database was last read, by its own clock. */
  #readAt: Date | undefined;
  /** Earlier events are not read. */
  #from = new Date(0);
  /** The ledger in which it holds. */
  #entered: string | undefined;
  /** A history ended while writing failed: what was committed in it last may be in no ledger. */
  #gap: LedgerFindings['gap'] = null;
  /** The history of which something may not be in the ledger that was open then; null: none was. */
  #behind: { readonly history: string; readonly ledger: string | null } | undefined;
  readonly #seen = new Set<string>();
  /** The history that the ledger has been compared with: only then may the mark move. */
  #compared: string | null = null;
  /** The ledger into which this process has followed the last settled history to its end. */
  #followedInto: string | undefined;
  #readAtMs = Number.NEGATIVE_INFINITY;
  /** Ledgers that nobody could tell to be of this database, when they were compared last. */
  #uncertain: readonly IgnoredLedger[] = [];
  /** The own ledger, if it was not whole then. */
  #damaged: string | null = null;
  /** Others that were not. */
  #ended: readonly IgnoredLedger[] = [];
  /** Without a ledger: whether the database remembers one. */
  #isMissed = false;
  /** The last mark and state of the stream. */
  #marked = { stream: '', sequence: -1, atMs: Number.NEGATIVE_INFINITY };
  #stated = { text: '', atMs: Number.NEGATIVE_INFINITY };
  #alive: Alive | undefined;
  #prunedAtMs = Number.NEGATIVE_INFINITY;
  #round: Promise<void> | undefined;
  #keeping: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #cancel: () => void = () => undefined;
  #stopped = false;
  #started = false;
  #onStanding: (standing: Standing) => void = () => undefined;

  constructor(deps: FollowerDeps) {
    this.#deps = deps;
    const { place, store, thread, logger, clock, newId: makeId = newId } = deps;
    if (!place) return;
    const folder = async () => {
      const { name, ...where } = await store.place();
      return { folder: path.join(place.dir, name.replaceAll(/[^\w.-]/g, '_')), ...where };
    };
    this.#own = new OwnLedger({ secret: place.secret, folder, thread, newId: makeId, logger, clock });
  }

  /** Whether a ledger is configured. */
  get isOn(): boolean {
    return this.#own !== undefined;
  }

  /** Entries written, and attempts that failed. */
  get counters(): OwnLedger['counters'] {
    return this.#own?.counters ?? { entries: 0, failures: 0 };
  }

  /**
   * Whether this process vouches for what comes: nothing is wrong with its ledger, nor with one that the database does not
   * know; where none is configured, none is remembered.
   */
  get isWhole(): boolean {
    if (!this.#own) return !this.#isMissed;
    return this.#own.isWhole && !this.#gap && this.#compared === this.#history;
  }

  /** The ledger that is open now; empty: none is. */
  get openLedger(): string {
    return this.#own?.ledger ?? '';
  }

  /** For people and programs: whether what is revoked now is written outside the database. */
  get state(): { state: LedgerOutcome; reason: string | null } {
    if (!this.#own) return { state: 'off', reason: null };
    const { failure } = this.#own;
    return { state: failure === null ? 'written' : 'failed', reason: failure };
  }

  /** @param onStanding is told where the database stands after each reading */
  async start(onStanding: (standing: Standing) => void): Promise<void> {
    this.#onStanding = onStanding;
    this.#started = true;
    await this.refresh();
    this.#schedule();
  }

  /** Reads where the database stands, and writes what is new. A failure is recorded and tried again later. */
  refresh(): Promise<void> {
    if (!this.#started || this.#stopped) return Promise.resolve();
    this.#round ??= this.#run().finally(() => {
      this.#round = undefined;
    });
    return this.#round;
  }

  /**
   * Waits until everything committed before the call is in the ledger; five seconds at most. Lateness is no failure of the
   * ledger: what is late is written later.
   * @returns what to say of it in a receipt
   */
  async written(): Promise<LedgerOutcome> {
    if (!this.isOn) return 'off';
    if (this.#stopped) return 'failed';
    const history = this.#standing?.history;
    // A round that has begun may have read before that commit: the next one has not. Callers share it.
    this.#next ??= (this.#round ?? Promise.resolve()).then(() => {
      this.#next = undefined;
      return this.refresh();
    });
    const late = Promise.withResolvers<'late'>();
    const cancel = this.#deps.clock.after(WAIT_MS, () => late.resolve('late'));
    const outcome = await Promise.race([this.#next, late.promise]);
    cancel();
    if (outcome === 'late')
      this.#deps.logger.warn(`writing the ledger takes longer than ${WAIT_MS} ms: a receipt says failed`);
    // In another history that commit may never have been read.
    const isWritten = outcome !== 'late' && this.#isUpToDate && this.#standing?.history === history;
    return isWritten ? this.state.state : 'failed';
  }

  /**
   * What the ledgers contain that a history lacks.
   * @param isPatient other ledgers that were alive are still waited for
   * @throws when PostgreSQL is unavailable
   */
  async compare(standing: Standing, isPatient: boolean): Promise<LedgerFindings> {
    const rows = await this.#deps.store.streams();
    if (this.#own) {
      const followed = { followedInto: this.#followedInto, gap: this.#gap, isPatient };
      const findings = await compareLedgers(this.#deps, this.#own, rows, standing, followed);
      if (this.#gap) await this.#distrust(this.#own, this.#gap);
      const isDecided = ({ until }: IgnoredLedger) => standing.decidedAtMs !== null && until <= standing.decidedAtMs;
      const decided = findings.uncertain.filter(isDecided);
      if (decided.length > 0) await this.#deps.store.ignore(decided);
      this.#uncertain = findings.uncertain.filter((one) => !isDecided(one));
      this.#damaged = findings.damaged;
      this.#ended = findings.ended;
      return findings;
    }
    this.#isMissed = rows.some((row) => row.is_settled);
    return nothingRead(standing.history, this.#isMissed ? 'ledger_missing' : 'no_ledger');
  }

  /**
   * Records that what this history lacked has been applied again: from here on the mark of the own ledger may move, if all of it
   * was read.
   */
  async compared({ history, read, whole }: LedgerFindings): Promise<void> {
    if (whole.length > 0) await this.#deps.store.compared(whole, history);
    await this.#keeping;
    const own = this.#own;
    if (own?.ledger === undefined || own.ledger !== read) return;
    this.#compared = history;
    await this.#mark(own);
  }

  /**
   * What was lacking has been decided on: the ledger vouches from now on, or a new one in its place. Where none is configured
   * any more, those from before are not missed at the next start. If the disk fails, which is recorded, `isWhole` stays false.
   * @param history the one that has been compared and decided on
   * @param isAll also ledgers beside the own one that the database does not know
   * @throws when PostgreSQL is unavailable
   */
  async adopt(history: string, isAll: boolean): Promise<void> {
    const own = this.#own;
    if (!own) {
      this.#isMissed = !(await this.#deps.store.forget());
      return;
    }
    const [damaged, ended] = [this.#damaged, isAll ? this.#ended : []];
    try {
      await own.adopt(isAll);
      if (!own.isWhole) return;
      this.#gap = null;
      // Nothing lies in it that was not compared.
      this.#compared = history;
      this.#damaged = null;
    } catch (error) {
      if (!(error instanceof LedgerFailure)) throw error;
      return;
    }
    // They are not asked about at each start.
    if (damaged !== null) {
      const { at } = await this.#deps.store.place();
      await this.#deps.store.ignore([...ended, { name: damaged, until: at.getTime() }]);
    } else if (ended.length > 0) await this.#deps.store.ignore(ended);
  }

  /**
   * An administrator has decided about what was lacking: uncertain ledgers are not looked at any more.
   * @throws when PostgreSQL is unavailable
   */
  async decided(history: string): Promise<void> {
    if (this.#uncertain.length > 0) await this.#deps.store.ignore(this.#uncertain);
    this.#uncertain = [];
    await this.adopt(history, true);
  }

  async #run(): Promise<void> {
    try {
      await this.#own?.open();
      this.#isUpToDate = await this.#follow();
    } catch (error) {
      this.#isUpToDate = false;
      this.#onFailure(error as Error);
    }
  }

  /** Those of the disk have been recorded. */
  #onFailure(error: Error): void {
    if (error instanceof LedgerFailure && this.#standing) this.#miss(this.#standing.history);
    else if (!(error instanceof LedgerFailure))
      this.#deps.logger.debug({ reason: error.message }, 'reading where the database stands failed, retrying');
  }

  /** @returns whether everything committed before has been written */
  async #follow(): Promise<boolean> {
    const row = await this.#read(EVENTS_MAX);
    const { at, xmin, peers } = row;
    this.#standing = standingOf(row);
    const { history, isCurrent, settledHistory } = this.#standing;
    const own = this.#own;
    if (!isCurrent || own?.ledger === undefined) {
      if (isCurrent) this.#miss(history);
      this.#tell();
      return false;
    }
    if (history !== this.#history) {
      if (await own.open(true)) await this.#enter(own, history, at);
      this.#tell();
      return this.#follow();
    }
    if (own.ledger !== this.#entered) {
      // Its disk was mounted late, or another one: it lacks what was written to the one before.
      await this.#enter(own, history, at);
      return this.#follow();
    }
    const events = row.events ?? [];
    const fresh = events.filter(({ id }) => !this.#seen.has(id));
    const entries = fresh.flatMap((event) => entryOf({ ...event, at: new Date(event.at) }) ?? []);
    await own.append(entries);
    for (const { id } of fresh) this.#seen.add(id);
    const next = BigInt(xmin);
    for (const { id, xid } of events) if (BigInt(xid) < next) this.#seen.delete(id);
    this.#behind = undefined;
    this.#cursor = xmin;
    this.#readAt = at;
    this.#readAtMs = this.#deps.clock.uptimeMs();
    this.#from = new Date(at.getTime() - LATE_MS);
    const isSettled = settledHistory === history && this.#compared === history;
    if (isSettled) this.#followedInto = own.ledger;
    this.#alive = { at, peers: isSettled ? peers : null };
    // Nobody who waits for an entry waits for that too.
    this.#keeping ??= this.#stayAlive(own, this.#alive).finally(() => {
      this.#keeping = undefined;
    });
    this.#tell();
    return true;
  }

  /** For the processes after this one, whatever the database is put back to. A failure is recorded; the next comparison tries again. */
  async #distrust(own: OwnLedger, { ledger }: NonNullable<LedgerFindings['gap']>): Promise<void> {
    try {
      await own.distrust(ledger);
    } catch (error) {
      if (!(error instanceof LedgerFailure)) throw error;
    }
  }

  /** Something of a history may not be in the ledger; of one that has ended, it never will be. */
  #miss(history: string): void {
    this.#leave(history);
    this.#behind ??= { history, ledger: this.#own?.lastLedger ?? null };
  }

  /** In a history, what is behind of another one never will be written. */
  #leave(history: string): void {
    if (this.#behind === undefined || this.#behind.history === history) return;
    const { ledger } = this.#behind;
    this.#gap = { ledger: this.#gap && this.#gap.ledger !== ledger ? null : ledger };
    this.#behind = undefined;
  }

  #tell(): void {
    this.#onStanding(this.#standing!);
  }

  async #read(limit: number): Promise<FollowRow> {
    const given = { cursor: this.#cursor, from: this.#from, limit, ledger: this.#own?.ledger ?? null };
    const row = await this.#deps.store.follow(given);
    // A page that is full can end within a transaction, and the cursor is none of its rows'.
    return (row.events?.length ?? 0) < limit ? row : this.#read(limit * 2);
  }

  /** Continues from where this ledger has followed this history; in another one from when it was last alive. */
  async #enter({ ledger, isWhole }: OwnLedger, history: string, at: Date): Promise<void> {
    const rows = await this.#deps.store.streams();
    const own = rows.filter((row) => row.ledger === ledger);
    const cursors = own.flatMap((row) => (row.history === history && row.cursor_xid ? BigInt(row.cursor_xid) : []));
    const latest = own.map((row) => row.seen_at.getTime()).sort((a, b) => a - b);
    const isSame = ledger === this.#entered;
    // One that was exchanged is compared first.
    if (!isSame && !isWhole) this.#compared = null;
    this.#entered = ledger;
    // What another process has done since then is not known here.
    const sinceMs = this.#deps.clock.uptimeMs() - this.#readAtMs;
    const isBehind = this.#behind !== undefined;
    if (isBehind || sinceMs > BLIND_MAX_MS || ledger !== this.#followedInto) this.#followedInto = undefined;
    this.#leave(history);
    this.#behind = undefined;
    this.#history = history;
    this.#seen.clear();
    this.#cursor = String(cursors.sort((a, b) => (a < b ? -1 : 1)).at(-1) ?? 0n);
    // A ledger that is new contains what comes from now on.
    const lastMs = (isSame ? this.#readAt?.getTime() : undefined) ?? latest.at(-1) ?? at.getTime();
    this.#from = new Date(lastMs - (cursors.length > 0 ? LATE_MS : OVERLAP_MS));
  }

  /** Writes, now and then, that the stream is alive, and how far it reaches. A failure is recorded and tried again later. */
  async #stayAlive(own: OwnLedger, alive: Alive): Promise<void> {
    try {
      await this.#recordAlive(own, alive);
    } catch (error) {
      this.#onFailure(error as Error);
    }
  }

  async #recordAlive(own: OwnLedger, alive: Alive): Promise<void> {
    const nowMs = this.#deps.clock.monotonicMs();
    const { stream } = own;
    const text = [stream, ...(alive.peers ? [...alive.peers].sort() : ['not settled'])].join();
    if (this.#stated.text !== text || nowMs - this.#stated.atMs >= ALIVE_MS) {
      await own.writeState(alive.at, alive.peers);
      this.#stated = { text, atMs: nowMs };
    }
    const sinceMs = this.#marked.stream === stream ? nowMs - this.#marked.atMs : Number.POSITIVE_INFINITY;
    const isBehind = own.place.sequence > this.#marked.sequence && sinceMs >= FOLLOW_MS;
    if (isBehind || sinceMs >= ALIVE_MS) await this.#mark(own);
    // Not before a comparison has read it.
    if (alive.peers && nowMs - this.#prunedAtMs >= PRUNE_MS) {
      this.#prunedAtMs = nowMs;
      const { ledgerDays } = this.#deps.retention;
      await this.#deps.store.prune(ledgerDays);
      await own.prune(alive.at.getTime() - ledgerDays * DAY_MS);
    }
  }

  /** Only in a history that was compared: what lies before a mark is not compared again. */
  async #mark({ stream, ledger, place, isSound }: OwnLedger): Promise<void> {
    if (this.#compared !== this.#history || ledger === undefined) return;
    const behind = {
      history: this.#history,
      cursor: this.#cursor,
      comparedHistory: isSound && !this.#gap && this.#uncertain.length === 0 ? this.#compared : null,
    };
    await this.#deps.store.moveMark({ stream, ledger, ...place, ...behind });
    const earlier = this.#marked.stream;
    if (earlier !== '' && earlier !== stream) await this.#deps.store.endStream(earlier);
    this.#marked = { stream, sequence: place.sequence, atMs: this.#deps.clock.monotonicMs() };
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#cancel = this.#deps.clock.after(FOLLOW_MS, () => void this.refresh().finally(() => this.#schedule()));
  }

  /** Does not read the database any more by itself. */
  pause(): void {
    this.#cancel();
  }

  /** Writes what is new and, in a history that was compared, how far that reaches. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#round;
    await this.#keeping;
    const own = this.#own;
    if (!own) return;
    if (own.ledger !== undefined && this.#compared === this.#history && this.#history !== '') {
      try {
        await this.#follow();
        await this.#keeping;
        await this.#mark(own);
        await this.#deps.store.endStream(own.stream);
        await own.writeState(this.#alive!.at, this.#alive!.peers);
      } catch (error) {
        this.#deps.logger.warn({ reason: (error as Error).message }, 'closing the ledger in order failed');
      }
    }
    await own.stop();
  }
}
