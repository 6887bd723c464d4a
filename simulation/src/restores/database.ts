import type { FollowRow, LedgerStore, StreamRow } from '@latchkey/token-service/ledger';
import type { Machine } from '../machine.js';
import { Unavailable } from '../network.js';
import type { Random } from '../random.js';
import type { Schedule } from '../schedule.js';

/** Simulated time begins then; only its differences matter. */
export const EPOCH_MS = Date.UTC(2030, 0, 1);
/** Ledgers whose process has written within this time are alive: as in the shipped SQL. */
const ALIVE_MS = 60_000;
/** Dumps keep it. */
const DATABASE = '00000000-0000-7000-8000-000000000001';
/** How PostgreSQL names a server: ledgers' folders are recognized by it. */
const FIRST_SYSTEM = 7_400_000_000_000_000n;
const DAY_MS = 24 * 3_600_000;
const QUICKEST_MS = 0.1;
const SLOWEST_MS = 8;
const COMMIT_SLOWEST_MS = 60;

export interface TokenRow {
  readonly id: string;
  readonly createdMs: number;
  isRevoked: boolean;
  isDisabled: boolean;
}

type EventRow = NonNullable<FollowRow['events']>[number];

interface RestoreRow {
  readonly history: string;
  reason: string | null;
  isSettled: boolean;
  /** When by an administrator. */
  decidedMs: number | null;
}

/** What makes an incarnation of a database. */
interface Server {
  readonly system: string;
  readonly timeline: number;
  readonly file: number;
}

/** What a backup contains. */
export interface Tables {
  log: string;
  incarnation: string;
  /** When the server had started, as last recorded. */
  started: string;
  settledHistory: string | null;
  settledIncarnation: string | null;
  restoredBeforeMs: number | null;
  readonly tokens: Map<string, TokenRow>;
  readonly events: EventRow[];
  readonly streams: Map<string, Omit<StreamRow, 'is_held'> & { endedMs: number | null }>;
  readonly replays: Set<string>;
  readonly ignored: Map<string, number>;
  readonly restores: RestoreRow[];
}

export interface Backup {
  readonly server: Server;
  readonly tables: Tables;
  readonly nextXid: bigint;
  readonly takenMs: number;
}

/** Of each as many as there are, so that none comes twice: one for all databases of a world. */
export class Numbers {
  systems = 0;
  timelines = 1;
  files = 1;
  starts = 0;
}

/** The start of a month, some months before a moment: audit events from before it are deleted. */
export function monthsBefore(nowMs: number, months: number): number {
  const now = new Date(nowMs);
  return Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months, 1);
}

/** One PostgreSQL at a time: what its tables say, how it is restored, and the statements of the shipped stores. */
export class RestorableDatabase {
  isRunning = true;
  tables: Tables;
  server: Server;
  #start: number;
  #nextXid = 1_000n;
  readonly #active = new Set<bigint>();
  readonly #random: Random;
  readonly #schedule: Schedule;
  readonly #numbers: Numbers;

  constructor(random: Random, schedule: Schedule, numbers: Numbers) {
    this.#random = random;
    this.#schedule = schedule;
    this.#numbers = numbers;
    this.#start = ++numbers.starts;
    this.server = this.#newServer();
    this.tables = {
      log: random.uuid(0),
      incarnation: this.incarnation,
      started: this.started,
      settledHistory: null,
      settledIncarnation: null,
      restoredBeforeMs: null,
      tokens: new Map(),
      events: [],
      streams: new Map(),
      replays: new Set(),
      ignored: new Map(),
      restores: [],
    };
  }

  /** Server, timeline, database and file, as in the shipped SQL. */
  get incarnation(): string {
    const { system, timeline, file } = this.server;
    return `${system}/${timeline}/5/${file}`;
  }

  get started(): string {
    return `start ${this.#start}`;
  }

  /** Of the folder in which the ledger of this server is. */
  get folderName(): string {
    return `${this.server.system}-latchkey`;
  }

  get nowMs(): number {
    return EPOCH_MS + this.#schedule.nowMs;
  }

  get history(): string {
    return `${this.tables.log}/${this.tables.started}`;
  }

  get isCurrent(): boolean {
    return this.tables.incarnation === this.incarnation && this.tables.started === this.started;
  }

  backUp(): Backup {
    return { server: this.server, tables: structuredClone(this.tables), nextXid: this.#nextXid, takenMs: this.nowMs };
  }

  /** Transactions under way are lost. */
  stop(): void {
    this.isRunning = false;
    this.#start = ++this.#numbers.starts;
    this.abort();
  }

  /** No transaction under way is committed. */
  abort(): void {
    this.#active.clear();
  }

  start(): void {
    this.isRunning = true;
  }

  /** Its data folder is put back, while it is stopped. */
  putBack({ server, tables, nextXid }: Backup): void {
    this.server = server;
    this.tables = structuredClone(tables);
    this.#nextXid = nextXid;
  }

  /** A dump is restored, into the same server or another one, whose transaction ids have nothing to do with it. */
  restoreDump({ tables }: Backup, isOther: boolean): void {
    this.tables = structuredClone(tables);
    this.server = { ...this.server, file: ++this.#numbers.files };
    if (!isOther) return;
    this.server = this.#newServer();
    this.#nextXid = BigInt(this.#random.int(500, 5_000));
  }

  /** A standby that has received no more than the backup is promoted, or the server is recovered to that time. */
  promote(backup: Backup): void {
    this.putBack(backup);
    this.server = { ...this.server, timeline: ++this.#numbers.timelines };
  }

  /** Deletes audit events of earlier months, as the job does. */
  retire(months: number): void {
    const keptMs = monthsBefore(this.nowMs, months);
    const kept = this.tables.events.filter(({ at }) => at >= keptMs);
    this.tables.events.splice(0, this.tables.events.length, ...kept);
  }

  #newServer(): Server {
    return { system: String(FIRST_SYSTEM + BigInt(++this.#numbers.systems)), timeline: 1, file: 1 };
  }

  /** One statement of a process: it sees one moment, and may never return. */
  statement<T>(by: Machine, work: () => T): Promise<T> {
    const deliver = by.address();
    const { started } = this;
    return new Promise((resolve, reject) => {
      const lost = () => deliver(this.#delay(), () => reject(new Unavailable('connection lost')));
      this.#schedule.after(this.#delay(), () => {
        if (!this.isRunning || started !== this.started) {
          lost();
          return;
        }
        let give: () => void;
        try {
          const result = work();
          give = () => resolve(result);
        } catch (error) {
          give = () => reject(error);
        }
        this.#schedule.after(this.#delay(), () => (started === this.started ? deliver(0, give) : lost()));
      });
    });
  }

  /**
   * One transaction. It has its id and its time from its beginning, and is seen from its commit on.
   * @param work runs at the commit; what it throws rolls it back
   */
  async transaction<T>(by: Machine, work: (given: { xid: string; atMs: number }) => T): Promise<T> {
    const { started } = this;
    const { xid, atMs } = await this.statement(by, () => {
      const taken = this.#nextXid++;
      this.#active.add(taken);
      return { xid: taken, atMs: this.nowMs };
    });
    const deliver = by.address();
    const open = () => started === this.started && this.#active.delete(xid);
    // A client that is gone leaves no transaction open.
    by.onDeath(() => open());
    await new Promise<void>((resolve, reject) => {
      const ms = this.#random.spread(QUICKEST_MS, COMMIT_SLOWEST_MS);
      deliver(ms, () => (started === this.started ? resolve() : reject(new Unavailable('connection lost'))));
    });
    return this.statement(by, () => {
      if (!open()) throw new Unavailable('connection lost');
      return work({ xid: String(xid), atMs });
    });
  }

  /** Of a transaction: an event that is followed into ledgers. */
  record(xid: string, atMs: number, action: EventRow['action'], tokenId: string): void {
    const id = this.#random.uuid(atMs);
    const ids = { subject_id: tokenId, token_id: tokenId, project_id: null };
    this.tables.events.push({ id, at: atMs, action, ...ids, details: { reason: 'unspecified' }, xid });
  }

  /** What the shipped `PostgresLedgerStore` does, for one process. */
  storeOf(by: Machine): LedgerStore {
    const run = <T>(work: (tables: Tables) => T): Promise<T> => this.statement(by, () => work(this.tables));
    return {
      place: () => run(() => ({ name: this.folderName, database: DATABASE, at: new Date(this.nowMs) })),
      follow: ({ cursor, from, limit, ledger }) => run((tables) => this.#follow(tables, cursor, from, limit, ledger)),
      streams: () =>
        run(({ streams }) => [...streams.values()].map((row) => ({ ...row, is_held: this.#isHeld(row.history) }))),
      lacking: (entries) =>
        run(({ events, replays }) => {
          const there = new Set(events.map(({ id }) => id));
          return new Set(entries.flatMap(({ e }) => (there.has(e) || replays.has(e) ? [] : [e])));
        }),
      moveMark: (mark) =>
        run(({ streams }) => {
          if (mark.history !== this.history || !this.isCurrent) return;
          const { stream, ledger, sequence, mac, history, cursor, comparedHistory } = mark;
          const seen_at = new Date(this.nowMs);
          const place = { sequence: String(sequence), mac, cursor_xid: cursor, compared_history: comparedHistory };
          const earlier = streams.get(stream);
          const isIn = this.tables.settledHistory === history;
          const settled_seen_at = isIn ? seen_at : (earlier?.settled_seen_at ?? null);
          const is_settled = earlier?.is_settled || isIn;
          streams.set(stream, {
            ...{ stream, ledger, history, ...place },
            ...{ seen_at, settled_seen_at, is_settled, endedMs: null },
          });
        }),
      endStream: (stream) =>
        run(({ streams }) => {
          const row = streams.get(stream);
          if (row) streams.set(stream, { ...row, endedMs: this.nowMs });
        }),
      compared: (ledgers, history) =>
        run(({ streams }) => {
          if (history !== this.history || !this.isCurrent) return;
          for (const [id, row] of streams)
            if (ledgers.includes(row.ledger)) streams.set(id, { ...row, compared_history: history });
        }),
      ignored: () => run(({ ignored }) => [...ignored].map(([name, until]) => ({ name, until }))),
      ignore: (some) =>
        run(({ ignored }) => {
          for (const { name, until } of some) ignored.set(name, until);
        }),
      prune: (days) =>
        run(({ streams }) => {
          for (const [id, row] of streams) if (row.seen_at.getTime() < this.nowMs - days * DAY_MS) streams.delete(id);
        }),
      forget: () =>
        run(({ streams, settledHistory }) => {
          const isSettled = this.isCurrent && settledHistory === this.history;
          if (isSettled && this.#aliveStreams().length === 0)
            for (const [id, row] of streams) streams.set(id, { ...row, is_settled: false });
          return [...streams.values()].every((row) => !row.is_settled);
        }),
    };
  }

  #isHeld(history: string): boolean {
    return this.tables.restores.some((one) => one.history === history && !one.isSettled);
  }

  /** Of ledgers that are kept now. */
  #aliveStreams(): Omit<StreamRow, 'is_held'>[] {
    const afterMs = this.nowMs - ALIVE_MS;
    return [...this.tables.streams.values()].filter((row) => row.endedMs === null && row.seen_at.getTime() > afterMs);
  }

  #follow(tables: Tables, cursor: string, from: Date, limit: number, ledger: string | null): FollowRow {
    const { history } = this;
    let xmin = this.#nextXid;
    for (const xid of this.#active) if (xid < xmin) xmin = xid;
    const events = tables.events
      .filter(({ xid, at }) => BigInt(xid) >= BigInt(cursor) && at >= from.getTime())
      .sort((a, b) => (BigInt(a.xid) < BigInt(b.xid) ? -1 : 1))
      .slice(0, limit);
    const alive = this.#aliveStreams().filter((row) => row.ledger !== ledger);
    const restore = tables.restores.find((one) => one.history === history);
    return {
      history,
      is_current: this.isCurrent,
      settled_history: tables.settledHistory,
      is_held: restore?.isSettled === false && restore.reason !== null && tables.restoredBeforeMs !== null,
      is_restored: restore !== undefined,
      decided_at: restore?.decidedMs == null ? null : new Date(restore.decidedMs),
      is_unsettled: tables.restoredBeforeMs !== null,
      incarnation: tables.incarnation,
      settled_incarnation: tables.settledIncarnation,
      at: new Date(this.nowMs),
      xmin: String(xmin),
      peers: [...new Set(alive.map((row) => row.ledger))],
      events: events.length === 0 ? null : structuredClone(events),
    };
  }

  #delay(): number {
    return this.#random.spread(QUICKEST_MS, SLOWEST_MS);
  }
}
