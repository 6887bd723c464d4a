import type { Database } from './database.js';
import type { Machine } from './machine.js';
import type { AuthorityModule } from './modules.js';
import { type Line, passage, Unavailable } from './network.js';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';
import type { Server, Tables } from './server.js';

/** How long a client of the database waits for a reply before it takes the connection for broken. */
const QUERY_TIMEOUT_MS = 400;
/** How long PostgreSQL takes to notice that a client died in the middle of a transaction. */
const CLIENT_LOST_MS = 300;
const CONNECTIONS_MAX = 5;
/** Keeps what is sent on one connection in order. */
const AN_INSTANT_MS = 1e-6;

interface Job {
  readonly writes: boolean;
  readonly run: (isWarned: boolean) => void;
  readonly onHang: () => void;
  readonly reject: () => void;
}

/** A client of the database, and its line to the servers. */
export interface ClientLink {
  readonly random: Random;
  readonly schedule: Schedule;
  readonly client: Machine;
  readonly line: Line;
}

/**
 * One connection, hence one server: statements run one after the other, and replies arrive, in the order sent. What the
 * shipped `Authority` needs of a `PreparedClient` is here under the same names.
 */
export class Connection {
  readonly id: string;
  /** There is no pooler: each connection has a server process of its own. */
  readonly processID = 1;
  proof?: object;
  warnings = 0;
  isClosed = false;
  readonly #server: Server;
  readonly #started: number;
  readonly #link: ClientLink;
  readonly #jobs: Job[] = [];
  #isBusy = false;
  /** Something was lost on the way: nothing arrives any more, and the caller notices by a timeout. */
  #isBroken = false;
  #sentMs = 0;
  #repliedMs = 0;

  constructor(server: Server, link: ClientLink) {
    this.#server = server;
    this.#started = server.started;
    this.#link = link;
    this.id = link.random.uuid(link.schedule.nowMs);
  }

  /** Whether its server is dead or was restarted: then its statements fail. */
  get isGone(): boolean {
    return !this.#server.isAlive || this.#server.started !== this.#started;
  }

  async end(): Promise<void> {
    this.isClosed = true;
  }

  /** One statement, run at one instant. When this rejects, it may have run all the same. */
  statement<T>(run: (server: Server) => T, kind: 'reads' | 'writes', onHang?: () => void): Promise<T> {
    const { client } = this.#link;
    const deliver = client.address();
    return new Promise((resolve, reject) => {
      let isOver = false;
      const fail = () => {
        if (isOver) return;
        isOver = true;
        this.isClosed = true;
        reject(new Unavailable('connection terminated'));
      };
      const lost = () => {
        this.#isBroken = true;
        deliver(QUERY_TIMEOUT_MS, fail);
      };
      const reply = (what: () => void) => {
        const atMs = this.#passes(this.#repliedMs);
        if (atMs === undefined) return lost();
        this.#repliedMs = atMs;
        const { isGone } = this;
        deliver(atMs - this.#nowMs, () => {
          if (isGone || isOver) return fail();
          isOver = true;
          what();
        });
      };
      const atMs = this.isClosed ? undefined : this.#passes(this.#sentMs);
      if (atMs === undefined) return lost();
      this.#sentMs = atMs;
      this.#link.schedule.after(atMs - this.#nowMs, () =>
        this.#arrived({
          writes: kind === 'writes',
          run: (isWarned) => {
            try {
              const value = run(this.#server);
              reply(() => {
                if (isWarned) this.warnings++;
                resolve(value);
              });
            } catch (error) {
              reply(() => reject(error));
            }
          },
          onHang: () => {
            onHang?.();
            deliver(QUERY_TIMEOUT_MS, fail);
          },
          reject: () => reply(fail),
        }),
      );
    });
  }

  /** What the shipped `Authority` sends. */
  async query(
    query: string | { text: string; values: unknown[] },
    values: unknown[] = [],
  ): Promise<{ rows: object[] }> {
    const {
      text,
      values: [value],
    } = typeof query === 'string' ? { text: query, values } : query;
    const run = ({ tables, system, timeline }: Server) => {
      if (text.startsWith('UPDATE invalidation_log SET longest_lease_ms')) {
        tables.longestLeaseMs = Math.max(tables.longestLeaseMs, value as number);
        return { rows: [] };
      }
      if (!text.startsWith('INSERT INTO authority_proofs')) throw new Error(`unknown statement: ${text}`);
      const row = {
        system,
        timeline: String(timeline).padStart(8, '0'),
        history: 'one',
        file: '1',
        lease_ms: tables.longestLeaseMs,
        pid: this.processID,
        synchronous_commit: 'on',
      };
      return { rows: [row] };
    };
    return this.statement(run, 'writes');
  }

  get #nowMs(): number {
    return this.#link.schedule.nowMs;
  }

  /** When a message sent now arrives, behind those before it; undefined: never. */
  #passes(beforeMs: number): number | undefined {
    const { random, line } = this.#link;
    const ms = this.#isBroken ? undefined : passage(random, [this.#server.line, line]);
    return ms === undefined ? undefined : Math.max(this.#nowMs + ms, beforeMs + AN_INSTANT_MS);
  }

  #arrived(job: Job): void {
    this.#jobs.push(job);
    if (!this.#isBusy) this.#next();
  }

  #next(): void {
    const job = this.#jobs.shift();
    if (!job) return;
    if (this.isGone) {
      job.reject();
      this.#next();
    } else if (!job.writes) {
      job.run(false);
      this.#next();
    } else {
      this.#isBusy = true;
      this.#server.commit((isWarned) => {
        this.#isBusy = false;
        job.run(isWarned);
        this.#next();
      }, job.onHang);
    }
  }
}

/** A transaction: what it wrote becomes visible all at once, when it commits. */
export interface Transaction {
  /** `pg_current_xact_id()`. */
  readonly xid: bigint;
  /** A statement of it. */
  read<T>(run: (tables: Tables) => T): Promise<T>;
  write(change: (tables: Tables) => void): void;
}

/**
 * The connections of one process, some perhaps to a server that was deposed. Repeats what `database.service.ts` does
 * with connections; which server may be read is the shipped `Authority`'s decision.
 */
export class Pool {
  readonly #db: Database;
  readonly #link: ClientLink;
  readonly #modules: Pick<AuthorityModule, 'mustBeUnwarned'>;
  protected readonly authority: InstanceType<AuthorityModule['Authority']>;
  #idle: Connection[] = [];
  #inUse = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(db: Database, link: ClientLink, modules: AuthorityModule, leaseMs: number) {
    this.#db = db;
    this.#link = link;
    this.#modules = modules;
    this.authority = new modules.Authority(link.client, leaseMs);
  }

  /** After an error the connection is not used again. */
  async withConnection<T>(work: (connection: Connection) => Promise<T>, max = CONNECTIONS_MAX): Promise<T> {
    while (this.#inUse >= max) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#inUse++;
    const connection = this.#take();
    try {
      const result = await work(connection);
      if (!connection.isClosed) this.#idle.push(connection);
      return result;
    } catch (error) {
      void connection.end();
      throw error;
    } finally {
      this.#inUse--;
      this.#waiting.shift()?.();
    }
  }

  /** As `Database.authoritative`: a read that can let a caller in. */
  authoritative<T>(read: (server: Server) => T): Promise<T> {
    return this.withConnection(async (connection) => {
      if (this.authority.holds(connection)) return connection.statement(read, 'reads');
      const [, found] = await Promise.all([this.prove(connection), connection.statement(read, 'reads')]);
      return found;
    });
  }

  prove(connection: Connection): Promise<void> {
    return this.authority.prove(connection);
  }

  /** A statement that must have ended without a warning. */
  async unwarned<T>(connection: Connection, run: (server: Server) => T, kind: 'reads' | 'writes'): Promise<T> {
    const { warnings } = connection;
    const result = await connection.statement(run, kind);
    this.#modules.mustBeUnwarned(connection, warnings);
    return result;
  }

  /**
   * One transaction that writes, and what is read right behind its commit. `body` runs once it has its xid; others may
   * begin and commit before it does. When this rejects, it may have committed all the same.
   */
  async transaction<T>(
    connection: Connection,
    body: (tx: Transaction) => Promise<void>,
    behind: (server: Server) => T,
  ): Promise<T> {
    const { schedule, client } = this.#link;
    const { xid, end } = await connection.statement((server) => server.begin(), 'reads');
    let isCommitting = false;
    const hangs = () => {
      isCommitting = true;
    };
    const changes: ((tables: Tables) => void)[] = [];
    // A client that dies or gives up leaves its transaction open until the server notices.
    const leave = () => schedule.after(CLIENT_LOST_MS, () => isCommitting || end(false));
    const alive = client.onDeath(leave);
    try {
      await body({
        xid,
        read: (run) => connection.statement(({ tables }) => run(tables), 'reads'),
        write: (change) => void changes.push(change),
      });
      const commit = ({ tables }: Server) => {
        if (!end(true)) throw new Unavailable('the transaction was broken off');
        for (const change of changes) change(tables);
      };
      const { warnings } = connection;
      const [, found] = await Promise.all([
        connection.statement(commit, 'writes', hangs),
        connection.statement(behind, 'reads'),
      ]);
      this.#modules.mustBeUnwarned(connection, warnings);
      return found;
    } catch (error) {
      leave();
      throw error;
    } finally {
      alive();
    }
  }

  #take(): Connection {
    this.#idle = this.#idle.filter((connection) => !connection.isGone && !connection.isClosed);
    const { random } = this.#link;
    // At times a further one, as if the others were in use.
    if (this.#idle.length === 0 || (this.#idle.length < CONNECTIONS_MAX && random.chance(0.1)))
      return new Connection(this.#db.route(), this.#link);
    return this.#idle.splice(random.int(0, this.#idle.length - 1), 1)[0]!;
  }
}
