import path from 'node:path';
import { type Clock, type Logger, newId } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Counter, Gauge, type Registry } from 'prom-client';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/index.js';
import { entryOf, LEDGER_ACTIONS, type LedgerEntry } from './entry.js';
import { ledgerKey, NO_PLACE, type Place } from './format.js';
import {
  END_STREAM,
  FOLLOW,
  type FollowRow,
  MOVE_MARK,
  PRUNE_STREAMS,
  SELECT_MISSING,
  SELECT_NEWEST,
  SELECT_STREAMS,
  type StreamRow,
} from './ledger.queries.js';
import { type LedgerComparison, LedgerThread, type Requests, ThreadEnded } from './thread.js';
import { type DoubtReason, doubtOf } from './vouching.js';

/** How often the database is read, and so how far a ledger is behind at most. */
const FOLLOW_MS = 1_000;
/** How often the mark and the state are written while nothing happens. */
const ALIVE_MS = 15_000;
/** Longest that a change waits for its ledger: a disk that does not respond delays no revocation further. */
const WAIT_MS = 5_000;
/** After a failure of the disk. */
const RETRY_MS = 1_000;
const EVENTS_MAX = 20_000;
/** Events of transactions that are committed later have earlier times. */
const LATE_MS = 24 * 3_600_000;
const DAY_MS = 24 * 3_600_000;
/** In another history, events are read again from so long before the last reading. */
const OVERLAP_MS = 10 * 60_000;
const COMPARED_AT_ONCE = 5_000;
const PRUNE_MS = 3_600_000;
const LOGGED_EVERY_MS = 60_000;

export type LedgerOutcome = 'written' | 'failed' | 'off';

/** What the ledgers say of the history that the database is in. */
export interface LedgerFindings {
  readonly history: string;
  /** Changes that this history lacks. */
  readonly missing: readonly LedgerEntry[];
  /** Why no ledger shows that nothing else is missing; null: one does. */
  readonly doubt: DoubtReason | null;
  /** For people: what is wrong, and where. */
  readonly problems: readonly string[];
  /** Until when the best of them reaches. */
  readonly reachesTo: string | null;
}

/** Where the database stands, as last read. */
export interface Standing {
  readonly history: string;
  readonly isCurrent: boolean;
  readonly settledHistory: string | null;
  /** Whether it is known already that an administrator must decide. */
  readonly isHeld: boolean;
  /** Since when it is doubted that this history is whole; null: it is not. */
  readonly doubtedAt: Date | null;
  /** The same database on a later timeline than the settled history: a standby was promoted, or it was recovered to a time. */
  readonly isPromoted: boolean;
}

/** Incarnations: system identifier, timeline, database, file. */
function isLaterTimeline(now: string, then: string | null): boolean {
  const [nowParts, thenParts] = [now, then ?? ''].map((text) => text.split('/')) as [string[], string[]];
  const isSame = (at: number) => nowParts[at] === thenParts[at];
  return isSame(0) && isSame(2) && isSame(3) && nowParts[1]! > thenParts[1]!;
}

/** Reading or writing the ledger failed. */
class LedgerFailure extends Error {
  override name = 'LedgerFailure';
}

/**
 * The ledger of this process: what takes rights away is also written outside the database, so that a restored backup cannot
 * undo it. It follows the audit events of every replica, at most a second behind; a change is not answered before its own
 * are written, unless the disk fails.
 */
@Injectable()
export class LedgerService implements BeforeApplicationShutdown, OnApplicationShutdown {
  readonly #thread = new LedgerThread();
  #stream = newId();
  #opened: { ledger: string; hasPast: boolean } | undefined;
  #failure: string | null = null;
  /** What failed: only its success shows that it works again. */
  #failed: keyof Requests | undefined;
  /** Whether the last round has read and written everything. */
  #isUpToDate = false;
  #place: Place = NO_PLACE;
  #standing: Standing | undefined;
  /** The history in which the cursor holds. */
  #history = '';
  #cursor = '0';
  /** When the database was last read, by its own clock. */
  #readAt: Date | undefined;
  /** Earlier events are not read. */
  #from = new Date(0);
  /** A history ended while writing failed: what was committed in it last may be in no ledger. */
  #hasGap = false;
  readonly #seen = new Set<string>();
  /** The history that the ledger has been compared with: only then may the mark move. */
  #compared: string | null = null;
  #marked = { sequence: -1, atMs: Number.NEGATIVE_INFINITY };
  #stated = { peers: '', atMs: Number.NEGATIVE_INFINITY };
  #prunedAtMs = Number.NEGATIVE_INFINITY;
  #loggedAtMs = Number.NEGATIVE_INFINITY;
  #round: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #cancel: () => void = () => undefined;
  #stopped = false;
  #started = false;
  #onStanding: (standing: Standing) => void = () => undefined;
  readonly #counters = { entries: 0, failures: 0 };

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  /** Whether a ledger is configured. */
  get isOn(): boolean {
    return this.config.LEDGER_DIR !== undefined;
  }

  /** For people and programs: whether what is revoked now is written outside the database. */
  get state(): { state: LedgerOutcome; reason: string | null } {
    if (!this.isOn) return { state: 'off', reason: null };
    return { state: this.#failure === null ? 'written' : 'failed', reason: this.#failure };
  }

  /** @throws Error saying why what is revoked now is not written outside the database, though that is configured */
  mustBeWritten(): void {
    if (this.#failure !== null) throw new Error(`revocations are not written to the ledger: ${this.#failure}`);
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
    // A round that has begun may have read before that commit: the next one has not. Callers share it.
    this.#next ??= (this.#round ?? Promise.resolve()).then(() => {
      this.#next = undefined;
      return this.refresh();
    });
    const late = Promise.withResolvers<'late'>();
    const cancel = this.clock.after(WAIT_MS, () => late.resolve('late'));
    const outcome = await Promise.race([this.#next, late.promise]);
    cancel();
    if (outcome === 'late')
      this.logger.warn(`writing the ledger takes longer than ${WAIT_MS} ms: a receipt says failed`);
    return outcome !== 'late' && this.#isUpToDate && this.#failure === null ? 'written' : 'failed';
  }

  /**
   * What the ledgers contain that a history lacks.
   * @param isFollowed this process has followed without interruption since a history that was settled
   * @param isPatient other ledgers that were alive are still waited for
   * @throws when PostgreSQL is unavailable
   */
  async compare(
    { history, doubtedAt, settledHistory }: Standing,
    isFollowed: boolean,
    isPatient: boolean,
  ): Promise<LedgerFindings> {
    const rows = await this.db.prepared<StreamRow>('ledger-streams', SELECT_STREAMS, []);
    const none = { history, missing: [], reachesTo: null };
    if (!this.isOn) return { ...none, doubt: rows.length > 0 ? 'ledger_missing' : 'no_ledger', problems: [] };
    await this.#open();
    if (!this.#opened) return { ...none, doubt: 'ledger_unreadable', problems: [this.#failure ?? ''] };
    const marks = rows.map(({ stream, ledger, sequence, mac, seen_at: seenAt }) => {
      return { stream, ledger, sequence: Number(sequence), mac, seenAt: seenAt.toISOString() };
    });
    const retainedSince = Date.now() - this.config.LEDGER_RETENTION_DAYS * DAY_MS;
    const ledgers = await this.#ask('compare', {
      marks,
      retainedSince,
      key: this.#key,
      of: { own: this.#stream, isOwnCounted: isFollowed, since: doubtedAt?.getTime() ?? null },
      isAll: settledHistory === null,
    });
    const missing = await this.#missing(ledgers);
    const own = { stream: this.#stream, isContinuous: isFollowed, hasGap: this.#hasGap, isPatient };
    const doubts = ledgers.map((ledger) => doubtOf(ledger, rows, { history, doubtedAt, own }));
    const problems = ledgers.flatMap(({ folder, faults }) => faults.map(({ message }) => `${folder}: ${message}`));
    const reached = ledgers.flatMap(({ reachesTo }) => reachesTo ?? []).sort();
    const doubt = doubts.includes(null) ? null : this.#strongest(doubts, rows);
    return { history, missing, doubt, problems, reachesTo: reached.at(-1) ?? null };
  }

  #strongest(doubts: readonly (DoubtReason | null)[], rows: readonly StreamRow[]): DoubtReason {
    if (rows.length === 0) return 'no_ledger';
    return doubts.find((doubt) => doubt !== null && doubt !== 'ledger_missing') ?? 'ledger_missing';
  }

  /** Records that what this history lacked has been applied again: from here on the mark may move. */
  async compared(history: string): Promise<void> {
    this.#compared = history;
    if (!this.#opened) return;
    await this.#mark();
  }

  /** What was lacking has been decided on: a copied ledger is the original from now on. */
  async adopt(): Promise<void> {
    this.#hasGap = false;
    if (this.#opened) await this.#ask('adopt', {});
  }

  async #missing(ledgers: readonly LedgerComparison[]): Promise<LedgerEntry[]> {
    const months = this.config.AUDIT_RETENTION_MONTHS;
    // Events of months that may have been deleted prove nothing by their absence; later than all that is there, they do.
    const now = new Date();
    const sinceMs = months === 0 ? 0 : Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months, 1);
    const entries = new Map(ledgers.flatMap((ledger) => ledger.entries.map((entry) => [entry.e, entry] as const)));
    const [newest] = await this.db.prepared<{ at: Date | null }>('ledger-newest', SELECT_NEWEST, []);
    const keptMs = Math.min(sinceMs, newest?.at?.getTime() ?? 0);
    const recent = [...entries.values()].filter(({ t }) => t >= keptMs);
    const missing: LedgerEntry[] = [];
    for (let at = 0; at < recent.length; at += COMPARED_AT_ONCE) {
      const some = recent.slice(at, at + COMPARED_AT_ONCE);
      const values = [some.map(({ e }) => e), some.map(({ t }) => new Date(t))];
      const found = await this.db.prepared<{ id: string }>('ledger-missing', SELECT_MISSING, values);
      const ids = new Set(found.map(({ id }) => id));
      missing.push(...some.filter(({ e }) => ids.has(e)));
    }
    return missing.sort((a, b) => a.t - b.t || (a.e < b.e ? -1 : 1));
  }

  async #run(): Promise<void> {
    try {
      await this.#open();
      this.#isUpToDate = await this.#follow();
    } catch (error) {
      this.#isUpToDate = false;
      // Those of the disk have been recorded.
      if (!(error instanceof LedgerFailure))
        this.logger.debug({ reason: (error as Error).message }, 'reading where the database stands failed, retrying');
    }
  }

  /** @returns whether everything committed before has been written */
  async #follow(): Promise<boolean> {
    const [row] = await this.#read(EVENTS_MAX);
    const {
      history,
      is_current: isCurrent,
      settled_history: settledHistory,
      is_held: isHeld,
      doubted_at: doubtedAt,
    } = row!;
    const { at, xmin, peers } = row!;
    const isPromoted = isLaterTimeline(row!.incarnation, row!.settled_incarnation);
    this.#standing = { history, isCurrent, settledHistory, isHeld, doubtedAt, isPromoted };
    if (!isCurrent || !this.#opened) {
      this.#tell();
      return false;
    }
    if (history !== this.#history) {
      await this.#enter(history, at);
      this.#tell();
      return this.#follow();
    }
    const events = row!.events ?? [];
    const fresh = events.filter(({ id }) => !this.#seen.has(id));
    const entries = fresh.flatMap((event) => entryOf({ ...event, at: new Date(event.at) }) ?? []);
    if (entries.length > 0) {
      this.#place = await this.#ask('append', { entries });
      this.#counters.entries += entries.length;
    }
    for (const { id } of fresh) this.#seen.add(id);
    const next = BigInt(xmin);
    for (const { id, xid } of events) if (BigInt(xid) < next) this.#seen.delete(id);
    this.#cursor = xmin;
    this.#readAt = at;
    this.#from = new Date(at.getTime() - LATE_MS);
    await this.#stayAlive(at, peers);
    this.#tell();
    return true;
  }

  #tell(): void {
    this.#onStanding(this.#standing!);
  }

  async #read(limit: number): Promise<FollowRow[]> {
    const values = [this.#cursor, this.#from, LEDGER_ACTIONS, limit, this.#opened?.ledger ?? null];
    const rows = await this.db.prepared<FollowRow>('ledger-follow', FOLLOW, values);
    // A page that is full can end within a transaction, and the cursor is none of its rows'.
    return (rows[0]?.events?.length ?? 0) < limit ? rows : this.#read(limit * 2);
  }

  /** Continues from where this ledger has followed this history; in another one from when it was last alive. */
  async #enter(history: string, at: Date): Promise<void> {
    const rows = await this.db.prepared<StreamRow>('ledger-streams', SELECT_STREAMS, []);
    const own = rows.filter(({ ledger }) => ledger === this.#opened!.ledger);
    const cursors = own.flatMap((row) => (row.history === history && row.cursor_xid ? BigInt(row.cursor_xid) : []));
    const latest = own.map((row) => row.seen_at.getTime()).sort((a, b) => a - b);
    if (this.#history !== '' && this.#failure !== null) this.#hasGap = true;
    this.#history = history;
    this.#seen.clear();
    this.#cursor = String(cursors.sort((a, b) => (a < b ? -1 : 1)).at(-1) ?? 0n);
    // A ledger that is new contains what comes from now on.
    const lastMs = this.#readAt?.getTime() ?? latest.at(-1) ?? at.getTime();
    this.#from = new Date(lastMs - (cursors.length > 0 ? LATE_MS : OVERLAP_MS));
  }

  async #stayAlive(at: Date, peers: readonly string[]): Promise<void> {
    const nowMs = this.clock.monotonicMs();
    const known = [...peers].sort().join();
    if (known !== this.#stated.peers || nowMs - this.#stated.atMs >= ALIVE_MS) {
      await this.#ask('state', { at: at.toISOString(), peers: [...peers], ended: false });
      this.#stated = { peers: known, atMs: nowMs };
    }
    const sinceMs = nowMs - this.#marked.atMs;
    const isBehind = this.#place.sequence > this.#marked.sequence && sinceMs >= FOLLOW_MS;
    if (this.#compared === this.#history && (isBehind || sinceMs >= ALIVE_MS)) await this.#mark();
    if (nowMs - this.#prunedAtMs >= PRUNE_MS) {
      this.#prunedAtMs = nowMs;
      const days = this.config.LEDGER_RETENTION_DAYS;
      await this.db.query(PRUNE_STREAMS, [days]);
      await this.#ask('prune', { before: at.getTime() - days * DAY_MS });
    }
  }

  async #mark(): Promise<void> {
    const { sequence, mac } = this.#place;
    const values = [this.#stream, this.#opened!.ledger, sequence, mac, this.#history, this.#cursor, this.#compared];
    await this.db.prepared('ledger-mark', MOVE_MARK, values);
    this.#marked = { sequence, atMs: this.clock.monotonicMs() };
  }

  async #open(): Promise<void> {
    if (!this.isOn || this.#opened) return;
    const folder = await this.#folder();
    try {
      const given = { folder, key: this.#key, ledger: newId(), stream: this.#stream };
      const opened = await this.#ask('open', given);
      // Begins the stream, so that later ones name it.
      this.#place = await this.#ask('append', { entries: [] });
      await this.#ask('state', { at: new Date().toISOString(), peers: [], ended: false });
      this.#opened = opened;
      this.logger.info({ folder, ledger: opened.ledger }, 'revocations are also written to this ledger');
    } catch (error) {
      // The service goes on without its ledger, which it reports.
      if (!(error instanceof LedgerFailure)) throw error;
    }
  }

  /** Named by the server and the database, so that a copy of the database does not write to the same. */
  async #folder(): Promise<string> {
    const [row] = await this.db.query<{ name: string }>(
      `SELECT system_identifier || '-' || current_database() AS name FROM pg_control_system()`,
    );
    return path.join(this.config.LEDGER_DIR!, row!.name.replaceAll(/[^\w.-]/g, '_'));
  }

  get #key(): string {
    return ledgerKey(this.config.LEDGER_KEY!);
  }

  #succeed(): void {
    if (this.#failure !== null) this.logger.info('the ledger is written again');
    this.#failure = null;
    this.#failed = undefined;
  }

  /** @throws LedgerFailure, which has been recorded */
  async #ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    try {
      const result = await this.#thread.ask(what, given);
      if (this.#failed === what) this.#succeed();
      return result;
    } catch (error) {
      this.#failed = what;
      this.#fail((error as Error).message);
      if (error instanceof ThreadEnded) this.#forgetStream();
      throw new LedgerFailure((error as Error).message, { cause: error });
    }
  }

  /** A new thread begins a new stream. */
  #forgetStream(): void {
    this.#opened = undefined;
    this.#stream = newId();
    this.#marked = { sequence: -1, atMs: Number.NEGATIVE_INFINITY };
    this.#stated = { peers: '', atMs: Number.NEGATIVE_INFINITY };
  }

  #fail(reason: string): void {
    this.#counters.failures++;
    const nowMs = this.clock.monotonicMs();
    if (this.#failure === null || nowMs - this.#loggedAtMs >= LOGGED_EVERY_MS) {
      this.#loggedAtMs = nowMs;
      this.logger.error(
        { reason },
        'writing the ledger failed, retrying: a backup that is restored now could undo revocations. Check LEDGER_DIR and its disk.',
      );
    }
    this.#failure = reason;
  }

  #schedule(): void {
    if (this.#stopped) return;
    const inMs = this.#failure === null ? FOLLOW_MS : RETRY_MS;
    this.#cancel = this.clock.after(inMs, () => void this.refresh().finally(() => this.#schedule()));
  }

  beforeApplicationShutdown(): void {
    this.#cancel();
  }

  async onApplicationShutdown(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#round;
    if (this.#opened && this.#compared === this.#history && this.#history !== '') {
      try {
        await this.#follow();
        await this.#mark();
        await this.db.prepared('ledger-end', END_STREAM, [this.#stream]);
        await this.#ask('state', { at: new Date().toISOString(), peers: [], ended: true });
      } catch (error) {
        this.logger.warn({ reason: (error as Error).message }, 'closing the ledger in order failed');
      }
    }
    await this.#thread.stop();
  }

  registerMetrics(registry: Registry): void {
    const { isOn } = this;
    const counters = this.#counters;
    const state = () => this.state.state;
    new Gauge({
      name: 'latchkey_ledger_written',
      help: '1: revocations are also written outside the database; 0: writing fails; -1: no ledger is configured',
      registers: [registry],
      collect() {
        this.set(isOn ? Number(state() === 'written') : -1);
      },
    });
    new Counter({
      name: 'latchkey_ledger_entries_total',
      help: 'Entries written to the ledger (written), and attempts that failed (failed)',
      labelNames: ['outcome'],
      registers: [registry],
      collect() {
        this.reset();
        this.inc({ outcome: 'written' }, counters.entries);
        this.inc({ outcome: 'failed' }, counters.failures);
      },
    });
  }
}
