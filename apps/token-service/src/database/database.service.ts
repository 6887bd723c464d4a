import {
  type Clock,
  checkPostgres,
  connectingTo,
  isPostgresUnavailable,
  type Logger,
  OutageLog,
  sqlState,
} from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { Client, Pool, type PoolClient, type PoolConfig, type QueryResultRow } from 'pg';
import { Counter, type Registry } from 'prom-client';
import { DataSource } from 'typeorm';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig, VERSION } from '../config.js';
import { Authority, AuthorityLost, mustBeUnwarned } from './authority.js';
import { BEGIN_SNAPSHOT, Change } from './change.js';
import { HISTORY_ID, IS_CURRENT } from './history.js';
import { PreparedClient } from './prepared-client.js';
import type { Statement } from './statement.js';

/** No statement needs longer unless the database is in trouble. */
export const STATEMENT_TIMEOUT_MS = 10_000;
const LOCK_TIMEOUT_MS = 5_000;
const CONNECT_TIMEOUT_MS = 2_000;
const ATTEMPTS_MAX = 4;
const LOST_LOGGED_EVERY_MS = 10_000;
/** An outage is over when nothing has failed for so long. */
const OUTAGE_QUIET_MS = 3_000;

const CONNECTION_LIMITS = {
  statement_timeout: STATEMENT_TIMEOUT_MS,
  lock_timeout: LOCK_TIMEOUT_MS,
  idle_in_transaction_session_timeout: STATEMENT_TIMEOUT_MS,
  // The network can lose a result: time out a little after the server would have.
  query_timeout: STATEMENT_TIMEOUT_MS + 2_000,
  keepAlive: true,
  idleTimeoutMillis: 60_000,
};

/**
 * For pages of long lists: rows are always read in the order of an index, never all read and sorted, however few the planner
 * expects. It estimates from the average number of tokens per owner, and some owners have thousands of times as many.
 */
export const LIST_SETTINGS = { enable_sort: 'off', max_parallel_workers_per_gather: '0', jit: 'off' } as const;

/** Connections reserved for lists: a quarter of those allowed, so that lists do not delay changes and checks. */
const listConnections = ({ DATABASE_POOL_SIZE }: Pick<TokenServiceConfig, 'DATABASE_POOL_SIZE'>): number =>
  Math.max(1, Math.floor(DATABASE_POOL_SIZE / 4));

/** With settings for the connection's session, which override those of its role and database. */
function withSettings(databaseUrl: string, settings: Readonly<Record<string, string>>): string {
  const url = new URL(databaseUrl);
  const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
  url.searchParams.set('options', [url.searchParams.get('options') ?? '', ...options].join(' ').trim());
  return url.href;
}

/** A commit that has returned is on disk, and at the standby where there is one. */
const COMMIT_SETTINGS = { synchronous_commit: 'on' } as const;

/** The type of pg's options lacks it. */
type PoolOptions = PoolConfig & { Client: typeof Client };

function listPool(config: TokenServiceConfig): Pool {
  const pool = new Pool({
    ...CONNECTION_LIMITS,
    max: listConnections(config),
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    application_name: 'latchkey-token-service lists',
    Client: connectingTo(Client, () => withSettings(config.DATABASE_URL, LIST_SETTINGS)),
  } satisfies PoolOptions);
  pool.on('error', () => undefined); // as with the other pool: the next query fails if reconnecting does
  return pool;
}

/** How the token-service connects: a bounded pool, and a timeout on everything that could wait forever. */
export function dataSourceOptions(config: TokenServiceConfig) {
  return {
    type: 'postgres' as const,
    url: withSettings(config.DATABASE_URL, COMMIT_SETTINGS),
    synchronize: false,
    migrationsRun: false,
    installExtensions: false,
    poolSize: config.DATABASE_POOL_SIZE - listConnections(config),
    connectTimeoutMS: CONNECT_TIMEOUT_MS,
    applicationName: 'latchkey-token-service',
    // A connection that is lost while idle is replaced; the next query fails if that fails.
    poolErrorHandler: () => undefined,
    extra: {
      ...CONNECTION_LIMITS,
      Client: connectingTo(PreparedClient, () => withSettings(config.DATABASE_URL, COMMIT_SETTINGS)),
      // Statements that do not await each other's results are sent together; each still runs after the one before it.
      pipeline: true,
    },
  };
}

/**
 * Waits for PostgreSQL, and checks that this version can use it: see `checkPostgres`.
 * @throws StartError
 */
export function checkDatabase(config: TokenServiceConfig, logger: Logger): Promise<void> {
  const connection = () =>
    new Client({
      ...CONNECTION_LIMITS,
      connectionString: withSettings(config.DATABASE_URL, COMMIT_SETTINGS),
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      application_name: 'latchkey-token-service start',
    });
  return checkPostgres({
    connection,
    version: VERSION,
    poolSize: config.DATABASE_POOL_SIZE,
    pooler: 'refused',
    logger,
  });
}

/** Out: the history; empty: not recorded yet. */
const SELECT_HISTORY = `SELECT CASE WHEN ${IS_CURRENT} THEN ${HISTORY_ID} ELSE '' END AS history FROM invalidation_log l`;

/** Operations on one connection. */
export interface OneConnection {
  /** Commits a row: the next read comes from the primary. */
  prove(): Promise<void>;
  /** One statement, prepared under its name; a write has been committed when it resolves. */
  prepared<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]>;
}

/** Access to PostgreSQL. */
@Injectable()
export class Database implements OnApplicationShutdown {
  readonly #lists: Pool;
  readonly #authority: Authority;
  /** Of PostgreSQL, as requests and the health check see it. */
  readonly outage: OutageLog;
  #lostLoggedAtMs = Number.NEGATIVE_INFINITY;
  #acceptedHistory = '';
  #onUnaccepted: () => void = () => undefined;

  constructor(
    @InjectDataSource() readonly source: DataSource,
    @Inject(CONFIG) config: TokenServiceConfig,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.#lists = listPool(config);
    this.outage = new OutageLog(logger, 'PostgreSQL', 'requests that need it get 503', OUTAGE_QUIET_MS);
    this.#authority = new Authority(clock, config.LEASE_MS);
  }

  registerMetrics(registry: Registry): void {
    const { counters } = this.#authority;
    new Counter({
      name: 'latchkey_authority_proofs_total',
      help: 'Commits that proved PostgreSQL to be still the primary (made), and failures to prove it (lost), which return 503',
      labelNames: ['outcome'],
      registers: [registry],
      collect() {
        this.reset();
        this.inc({ outcome: 'made' }, counters.proofs);
        this.inc({ outcome: 'lost' }, counters.lost);
      },
    });
  }

  /** The history in which what allows access may be read; empty: none yet. */
  get acceptedHistory(): string {
    return this.#acceptedHistory;
  }

  /** Whether a row that was read with this log is of the accepted history. */
  isAcceptedLog(log: string): boolean {
    return this.#acceptedHistory.startsWith(`${log}/`);
  }

  /** From now on what allows access may be read in this history: it has been compared with the ledger. */
  accept(history: string): void {
    this.#acceptedHistory = history;
  }

  /**
   * For a change that lets somebody in, a sign-in for instance.
   * @throws AuthorityLost when the transaction is in another history than the accepted one
   */
  async mustBeAccepted(change: Change): Promise<void> {
    const [row] = await change.read<{ history: string }>([SELECT_HISTORY]);
    if (this.#isAccepted(row?.history)) return;
    this.#onUnaccepted();
    throw new AuthorityLost('PostgreSQL has started, or a backup was restored: it is being compared with the ledger');
  }

  /** Until a history is accepted, nothing that allows access is read. */
  withdraw(): void {
    this.#acceptedHistory = '';
  }

  /** @param listener is called when a connection turns out to be in another history than the accepted one */
  onUnaccepted(listener: () => void): void {
    this.#onUnaccepted = listener;
  }

  /** Neither one that is not recorded yet nor, while none is accepted, any: both are empty. */
  #isAccepted(history: string | undefined): boolean {
    return history !== undefined && history !== '' && history === this.#acceptedHistory;
  }

  /** @throws AuthorityLost when a restore into this database has replaced the log since the proof */
  #ofAcceptedFile<Row extends QueryResultRow>(connection: PreparedClient, rows: Row[]): Row[] {
    if (rows.every(({ file }) => file === undefined || file === connection.proof?.file)) return rows;
    delete connection.proof;
    this.#onUnaccepted();
    throw new AuthorityLost('a backup was restored: it is being compared with the ledger');
  }

  /**
   * @param since the history that was accepted when the read was sent
   * @throws AuthorityLost when the server of this connection is in a history that was not compared by then
   */
  #mustBeAccepted({ proof }: PreparedClient, since = this.#acceptedHistory): void {
    if (this.#isAccepted(proof?.history) && proof?.history === since) return;
    this.#onUnaccepted();
    throw new AuthorityLost('PostgreSQL has started, or a backup was restored: it is being compared with the ledger');
  }

  /** Logs a warning when PostgreSQL's settings allow commits to be lost, or when reading them failed. */
  async checkDurability(): Promise<void> {
    const [settings] = await this.query<{ fsync: string; full_page_writes: string }>(
      `SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes`,
    ).catch((error: unknown) => {
      this.logger.warn(
        { reason: (error as Error).message },
        'reading whether commits in PostgreSQL are durable failed',
      );
      return [];
    });
    await this.onOneConnection((here) => here.prove()).catch((error: Error) => {
      this.logger.error(
        { reason: error.message },
        'PostgreSQL did not prove that it is the primary: returning 503 until it does',
      );
    });
    for (const [name, value] of Object.entries(settings ?? {}))
      if (value !== 'on')
        this.logger.warn(
          `PostgreSQL runs with ${name} = ${value}: after a crash it can lose revocations that were confirmed. Set it to on.`,
        );
  }

  /** Always counts, logs at most every ten seconds. */
  #noteLost(error: unknown): void {
    if (!(error instanceof AuthorityLost)) return;
    this.#authority.counters.lost++;
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.#lostLoggedAtMs < LOST_LOGGED_EVERY_MS) return;
    this.#lostLoggedAtMs = nowMs;
    this.logger.warn({ reason: error.message }, 'PostgreSQL could not show that it is the primary: returning 503');
  }

  async onApplicationShutdown(): Promise<void> {
    await this.#lists.end();
  }

  /**
   * Runs a change in one transaction, again from the start when PostgreSQL aborted it for a deadlock or a conflict, at most
   * four times.
   * @param work must do nothing outside the transaction; what it queues is written with the commit
   * @returns what `work` returned, once it is committed
   * @throws what `work` threw, or PostgreSQL's error for a statement: then nothing has changed. After a lost connection or a
   *   timeout behind COMMIT, and with AuthorityLost, it is unknown whether anything has
   */
  async change<T>(work: (change: Change) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(work);
      } catch (error) {
        if (attempt >= ATTEMPTS_MAX || !['40001', '40P01'].includes(sqlState(error) ?? '')) throw error;
      }
    }
  }

  /**
   * Reads everything as of one moment, however long a statement takes.
   * @param work must not write
   */
  snapshot<T>(work: (snapshot: Pick<Change, 'read'>) => Promise<T>): Promise<T> {
    return this.#once((change) => {
      change.write(['SET LOCAL statement_timeout = 0']);
      return work(change);
    }, BEGIN_SNAPSHOT);
  }

  async #once<T>(work: (change: Change) => Promise<T>, beginning?: Statement): Promise<T> {
    const runner = this.source.createQueryRunner();
    try {
      const change = new Change(await runner.connect(), beginning);
      try {
        const result = await work(change);
        await change.commit();
        return result;
      } catch (error) {
        this.#noteLost(error);
        await change.rollBack();
        throw error;
      }
    } finally {
      await runner.release();
    }
  }

  /** One statement, prepared once per connection under `name`: for hot paths. */
  async prepared<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    const { rows } = await this.#pool.query<Row>({ name, text, values });
    return rows;
  }

  /**
   * One prepared statement whose rows allow access, each with `LOG_FILE` as `file`: read on a connection whose server has proved, within the authority
   * window, that it is still the primary, and which is in the accepted history. When the window has passed, the commit that
   * proves it is sent ahead.
   * @throws AuthorityLost when the proof fails, or the history has not been compared with the ledger yet
   */
  authoritative<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    return this.#withConnection(async (connection) => {
      const read = (): Promise<{ rows: Row[] }> => connection.query({ name, text, values });
      if (this.#authority.holds(connection) && this.#isAccepted(connection.proof?.history))
        return this.#ofAcceptedFile(connection, (await read()).rows);
      // What is read before a history is accepted lacks what that acceptance waited for, also when it arrives behind it.
      const accepted = this.#acceptedHistory;
      const [, { rows }] = await Promise.all([this.#authority.prove(connection), read()]);
      this.#mustBeAccepted(connection, accepted);
      return this.#ofAcceptedFile(connection, rows);
    });
  }

  /**
   * One prepared statement behind a proof of its own. For statements whose empty result decides something: no invalidation
   * covers rows that do not exist, so the authority window is not enough.
   * @throws AuthorityLost when PostgreSQL cannot prove that it is the primary
   */
  proved<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    return this.#withConnection(async (connection) => {
      await this.#authority.prove(connection);
      this.#mustBeAccepted(connection);
      const { rows }: { rows: Row[] } = await connection.query({ name, text, values });
      return rows;
    });
  }

  /**
   * Statements on one connection, each in a transaction of its own: a read after a commit comes from the server that
   * committed.
   * @throws AuthorityLost when PostgreSQL warned at one of them
   */
  onOneConnection<T>(work: (here: OneConnection) => Promise<T>): Promise<T> {
    return this.#withConnection((connection) =>
      work({
        prove: () => this.#authority.prove(connection),
        prepared: async <Row extends QueryResultRow>(name: string, text: string, values: unknown[]) => {
          const { warnings } = connection;
          const { rows }: { rows: Row[] } = await connection.query({ name, text, values });
          mustBeUnwarned(connection, warnings);
          return rows;
        },
      }),
    );
  }

  /** After an error the connection is closed. */
  async #withConnection<T>(work: (connection: PreparedClient) => Promise<T>): Promise<T> {
    const connection = (await this.#pool.connect()) as unknown as PreparedClient & PoolClient;
    let failure: Error | undefined;
    try {
      return await work(connection);
    } catch (error) {
      this.#noteLost(error);
      failure = error as Error;
      throw error;
    } finally {
      connection.release(failure);
    }
  }

  /** One statement that finds the rows of a page of a long list, under `LIST_SETTINGS`. */
  async page<Row extends QueryResultRow>(text: string, values: unknown[]): Promise<Row[]> {
    const { rows } = await this.#lists.query<Row>(text, values);
    return rows;
  }

  /** One statement outside any transaction, planned for its values: for dynamically built SQL. */
  async query<Row extends QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    const { rows } = await this.#pool.query<Row>({ text, values });
    return rows;
  }

  get #pool(): Pool {
    return (this.source.driver as unknown as { master: Pool }).master;
  }
}

/** The unique constraint that an insert or update violated. */
export function constraintHit(error: unknown): string | undefined {
  if (sqlState(error) !== '23505') return undefined;
  const { driverError, constraint } = error as { driverError?: { constraint?: string }; constraint?: string };
  return constraint ?? driverError?.constraint;
}

/** Whether an error means that PostgreSQL is unavailable, overloaded or not proved to be the primary. */
export function isDatabaseUnavailable(error: unknown): boolean {
  const { cause, driverError } = (error ?? {}) as { cause?: unknown; driverError?: unknown };
  return [error, cause, driverError].some((one) => one instanceof AuthorityLost) || isPostgresUnavailable(error);
}
