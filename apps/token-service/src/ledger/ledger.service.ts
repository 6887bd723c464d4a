import path from 'node:path';
import type { Clock, Logger } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Counter, Gauge, type Registry } from 'prom-client';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/index.js';
import { entryOf, LEDGER_ACTIONS, type LedgerEntry } from './entry.js';
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
import { LedgerFailure, OwnLedger } from './own-ledger.js';
import type { LedgerComparison } from './thread.js';
import { type DoubtReason, doubtOf } from './vouching.js';

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
const COMPARED_AT_ONCE = 5_000;
const PRUNE_MS = 3_600_000;

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

/**
 * The ledger of this process: what takes rights away is also written outside the database, so that a restored backup cannot
 * undo it. It follows the audit events of every replica, at most a second behind; a change is not answered before its own
 * are written, unless the disk fails.
 */
@Injectable()
export class LedgerService implements BeforeApplicationShutdown, OnApplicationShutdown {
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
  /** A history ended while writing failed: what was committed in it last may be in no ledger. */
  #hasGap = false;
  readonly #seen = new Set<string>();
  /** The history that the ledger has been compared with: only then may the mark move. */
  #compared: string | null = null;
  /** The last mark and state of the stream. */
  #marked = { stream: '', sequence: -1, atMs: Number.NEGATIVE_INFINITY };
  #stated = { stream: '', peers: '', atMs: Number.NEGATIVE_INFINITY };
  #prunedAtMs = Number.NEGATIVE_INFINITY;
  #round: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #cancel: () => void = () => undefined;
  #stopped = false;
  #started = false;
  #onStanding: (standing: Standing) => void = () => undefined;

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {
    const { LEDGER_DIR: dir, LEDGER_KEY: secret } = config;
    if (dir !== undefined && secret !== undefined)
      this.#own = new OwnLedger({ secret, folder: () => this.#folder(dir), logger, clock });
  }

  /** Whether a ledger is configured. */
  get isOn(): boolean {
    return this.#own !== undefined;
  }

  /** For people and programs: whether what is revoked now is written outside the database. */
  get state(): { state: LedgerOutcome; reason: string | null } {
    if (!this.#own) return { state: 'off', reason: null };
    const { failure } = this.#own;
    return { state: failure === null ? 'written' : 'failed', reason: failure };
  }

  /** @throws Error saying why what is revoked now is not written outside the database, though that is configured */
  mustBeWritten(): void {
    const { reason } = this.state;
    if (reason !== null) throw new Error(`revocations are not written to the ledger: ${reason}`);
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
    return outcome !== 'late' && this.#isUpToDate ? this.state.state : 'failed';
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
    const own = this.#own;
    if (!own) return { ...none, doubt: rows.length > 0 ? 'ledger_missing' : 'no_ledger', problems: [] };
    if (!(await own.open())) return { ...none, doubt: 'ledger_unreadable', problems: [own.failure ?? ''] };
    const marks = rows.map(({ stream, ledger, sequence, mac, seen_at: seenAt }) => {
      return { stream, ledger, sequence: Number(sequence), mac, seenAt: seenAt.toISOString() };
    });
    const retainedSince = Date.now() - this.config.LEDGER_RETENTION_DAYS * DAY_MS;
    const ledgers = await own.compare({
      marks,
      retainedSince,
      of: { own: own.stream, isOwnCounted: isFollowed, since: doubtedAt?.getTime() ?? null },
      isAll: settledHistory === null,
    });
    const missing = await this.#missing(ledgers);
    const here = { stream: own.stream, isContinuous: isFollowed, hasGap: this.#hasGap, isPatient };
    const doubts = ledgers.map((ledger) => doubtOf(ledger, rows, { history, doubtedAt, own: here }));
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
    if (this.#own?.ledger !== undefined) await this.#mark(this.#own);
  }

  /** What was lacking has been decided on: a copied ledger is the original from now on. */
  async adopt(): Promise<void> {
    this.#hasGap = false;
    if (this.#own?.ledger !== undefined) await this.#own.adopt();
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
      await this.#own?.open();
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
    const own = this.#own;
    if (!isCurrent || own?.ledger === undefined) {
      this.#tell();
      return false;
    }
    if (history !== this.#history) {
      await this.#enter(own, history, at);
      this.#tell();
      return this.#follow();
    }
    const events = row!.events ?? [];
    const fresh = events.filter(({ id }) => !this.#seen.has(id));
    const entries = fresh.flatMap((event) => entryOf({ ...event, at: new Date(event.at) }) ?? []);
    await own.append(entries);
    for (const { id } of fresh) this.#seen.add(id);
    const next = BigInt(xmin);
    for (const { id, xid } of events) if (BigInt(xid) < next) this.#seen.delete(id);
    this.#cursor = xmin;
    this.#readAt = at;
    this.#from = new Date(at.getTime() - LATE_MS);
    await this.#stayAlive(own, at, peers);
    this.#tell();
    return true;
  }

  #tell(): void {
    this.#onStanding(this.#standing!);
  }

  async #read(limit: number): Promise<FollowRow[]> {
    const values = [this.#cursor, this.#from, LEDGER_ACTIONS, limit, this.#own?.ledger ?? null];
    const rows = await this.db.prepared<FollowRow>('ledger-follow', FOLLOW, values);
    // A page that is full can end within a transaction, and the cursor is none of its rows'.
    return (rows[0]?.events?.length ?? 0) < limit ? rows : this.#read(limit * 2);
  }

  /** Continues from where this ledger has followed this history; in another one from when it was last alive. */
  async #enter({ ledger, failure }: OwnLedger, history: string, at: Date): Promise<void> {
    const rows = await this.db.prepared<StreamRow>('ledger-streams', SELECT_STREAMS, []);
    const own = rows.filter((row) => row.ledger === ledger);
    const cursors = own.flatMap((row) => (row.history === history && row.cursor_xid ? BigInt(row.cursor_xid) : []));
    const latest = own.map((row) => row.seen_at.getTime()).sort((a, b) => a - b);
    if (this.#history !== '' && failure !== null) this.#hasGap = true;
    this.#history = history;
    this.#seen.clear();
    this.#cursor = String(cursors.sort((a, b) => (a < b ? -1 : 1)).at(-1) ?? 0n);
    // A ledger that is new contains what comes from now on.
    const lastMs = this.#readAt?.getTime() ?? latest.at(-1) ?? at.getTime();
    this.#from = new Date(lastMs - (cursors.length > 0 ? LATE_MS : OVERLAP_MS));
  }

  async #stayAlive(own: OwnLedger, at: Date, peers: readonly string[]): Promise<void> {
    const nowMs = this.clock.monotonicMs();
    const { stream } = own;
    const known = [...peers].sort().join();
    const isStated = this.#stated.stream === stream && this.#stated.peers === known;
    if (!isStated || nowMs - this.#stated.atMs >= ALIVE_MS) {
      await own.writeState(at, peers);
      this.#stated = { stream, peers: known, atMs: nowMs };
    }
    const sinceMs = this.#marked.stream === stream ? nowMs - this.#marked.atMs : Number.POSITIVE_INFINITY;
    const isBehind = own.place.sequence > this.#marked.sequence && sinceMs >= FOLLOW_MS;
    if (this.#compared === this.#history && (isBehind || sinceMs >= ALIVE_MS)) await this.#mark(own);
    if (nowMs - this.#prunedAtMs >= PRUNE_MS) {
      this.#prunedAtMs = nowMs;
      const days = this.config.LEDGER_RETENTION_DAYS;
      await this.db.query(PRUNE_STREAMS, [days]);
      await own.prune(at.getTime() - days * DAY_MS);
    }
  }

  async #mark({ stream, ledger, place }: OwnLedger): Promise<void> {
    const { sequence, mac } = place;
    const values = [stream, ledger, sequence, mac, this.#history, this.#cursor, this.#compared];
    await this.db.prepared('ledger-mark', MOVE_MARK, values);
    this.#marked = { stream, sequence, atMs: this.clock.monotonicMs() };
  }

  /** Named by the server and the database, so that a copy of the database does not write to the same. */
  async #folder(dir: string): Promise<string> {
    const [row] = await this.db.query<{ name: string }>(
      `SELECT system_identifier || '-' || current_database() AS name FROM pg_control_system()`,
    );
    return path.join(dir, row!.name.replaceAll(/[^\w.-]/g, '_'));
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#cancel = this.clock.after(FOLLOW_MS, () => void this.refresh().finally(() => this.#schedule()));
  }

  beforeApplicationShutdown(): void {
    this.#cancel();
  }

  async onApplicationShutdown(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#round;
    const own = this.#own;
    if (!own) return;
    if (own.ledger !== undefined && this.#compared === this.#history && this.#history !== '') {
      try {
        await this.#follow();
        await this.#mark(own);
        await this.db.prepared('ledger-end', END_STREAM, [own.stream]);
        await own.writeState(new Date(), [], true);
      } catch (error) {
        this.logger.warn({ reason: (error as Error).message }, 'closing the ledger in order failed');
      }
    }
    await own.stop();
  }

  registerMetrics(registry: Registry): void {
    const { isOn } = this;
    const counters = () => this.#own?.counters ?? { entries: 0, failures: 0 };
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
        this.inc({ outcome: 'written' }, counters().entries);
        this.inc({ outcome: 'failed' }, counters().failures);
      },
    });
  }
}
