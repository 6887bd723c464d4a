import type { Clock, Logger } from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { Pool, type PoolClient, type QueryResultRow } from 'pg';
import { Counter, type Registry } from 'prom-client';
import { DataSource, type EntityManager } from 'typeorm';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Authority, AuthorityLost, mustBeUnwarned } from './authority.js';
import { PreparedClient } from './prepared-client.js';
import type { Statement } from './statement.js';

/** An open transaction: handed to everything that must happen together or not at all. */
export type Tx = EntityManager;

/** A statement that takes longer says that the database is in trouble; nothing here needs more. */
export const STATEMENT_TIMEOUT_MS = 10_000;
const LOCK_TIMEOUT_MS = 5_000;
const CONNECT_TIMEOUT_MS = 2_000;
const ATTEMPTS_MAX = 4;
const LOST_TOLD_EVERY_MS = 10_000;

/** What a change ends with: writes that do not wait for one another, and what to make of their rows. */
export class Last<T> {
  constructor(
    readonly writes: readonly Statement[],
    readonly result: (rows: QueryResultRow[][]) => T,
  ) {}
}

const BEGIN: Statement = ['BEGIN ISOLATION LEVEL READ COMMITTED'];
const COMMIT: Statement = ['COMMIT'];

const LIMITS_OF_A_CONNECTION = {
  statement_timeout: STATEMENT_TIMEOUT_MS,
  lock_timeout: LOCK_TIMEOUT_MS,
  idle_in_transaction_session_timeout: STATEMENT_TIMEOUT_MS,
  // The network may swallow an answer: give up a little after the server would have.
  query_timeout: STATEMENT_TIMEOUT_MS + 2_000,
  keepAlive: true,
  idleTimeoutMillis: 60_000,
};

/**
 * For pages of long lists: rows in the order of an index are never read all and sorted instead, however few the planner
 * thinks they are. It knows how many tokens owners have on average, and some have thousands of times as many.
 */
export const LIST_SETTINGS = { enable_sort: 'off', max_parallel_workers_per_gather: '0', jit: 'off' } as const;

/** Of the connections allowed, those kept for lists: a quarter, so that lists do not hold up changes and checks. */
const listConnections = ({ DATABASE_POOL_SIZE }: Pick<TokenServiceConfig, 'DATABASE_POOL_SIZE'>): number =>
  Math.max(1, Math.floor(DATABASE_POOL_SIZE / 4));

/** With settings for the connection's own session, whatever its role or database say. */
function withSettings(databaseUrl: string, settings: Readonly<Record<string, string>>): string {
  const url = new URL(databaseUrl);
  const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
  url.searchParams.set('options', [url.searchParams.get('options') ?? '', ...options].join(' ').trim());
  return url.href;
}

/** A commit that has been answered is on disk, and at the stand-by where there is one. */
const COMMIT_SETTINGS = { synchronous_commit: 'on' } as const;

function listPool(config: TokenServiceConfig): Pool {
  const pool = new Pool({
    ...LIMITS_OF_A_CONNECTION,
    connectionString: withSettings(config.DATABASE_URL, LIST_SETTINGS),
    max: listConnections(config),
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    application_name: 'latchkey-token-service lists',
  });
  pool.on('error', () => undefined); // as with the other pool: whoever asks next is told
  return pool;
}

/** How the token-service connects: a bounded pool, and a time limit on everything that could wait for ever. */
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
    // A connection that is lost while idle is replaced; whoever asks next is told if that fails.
    poolErrorHandler: () => undefined,
    extra: {
      ...LIMITS_OF_A_CONNECTION,
      Client: PreparedClient,
      // Statements that do not wait for one another's answers go out together; each still runs after the one before it.
      pipeline: true,
    },
  };
}

/** A change as it is made in a transaction. */
type Change<T> = (tx: Tx, found: QueryResultRow[]) => Promise<T | Last<T>>;
type ChangeAfter<T> = (tx: Tx, found: QueryResultRow[][]) => Promise<T | Last<T>>;

/** What is done on one connection. */
export interface OneConnection {
  /** Commits a row: what is read next is read from the primary. */
  prove(): Promise<void>;
  /** One statement, prepared under its name; a write has been committed when it resolves. */
  prepared<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]>;
}

/** The way to PostgreSQL. */
@Injectable()
export class Database implements OnApplicationShutdown {
  readonly #lists: Pool;
  readonly #authority: Authority;
  #lostToldAtMs = Number.NEGATIVE_INFINITY;

  constructor(
    @InjectDataSource() readonly source: DataSource,
    @Inject(CONFIG) config: TokenServiceConfig,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.#lists = listPool(config);
    this.#authority = new Authority(clock, config.LEASE_MS);
  }

  registerMetrics(registry: Registry): void {
    const { counters } = this.#authority;
    new Counter({
      name: 'latchkey_authority_proofs_total',
      help: 'Commits that showed PostgreSQL to be the primary still (made), and how often it could not (lost): then 503',
      labelNames: ['outcome'],
      registers: [registry],
      collect() {
        this.reset();
        this.inc({ outcome: 'made' }, counters.proofs);
        this.inc({ outcome: 'lost' }, counters.lost);
      },
    });
  }

  /** Says so when PostgreSQL has been told that commits need not last, or that this could not be asked. */
  async checkDurability(): Promise<void> {
    const [settings] = await this.query<{ fsync: string; full_page_writes: string }>(
      `SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes`,
    ).catch((error: unknown) => {
      this.logger.warn({ reason: (error as Error).message }, 'PostgreSQL did not say whether its commits last');
      return [];
    });
    await this.onOneConnection((here) => here.prove()).catch((error: Error) => {
      this.logger.error(
        { reason: error.message },
        'PostgreSQL did not show that it is the primary: answering 503 until it does',
      );
    });
    for (const [name, value] of Object.entries(settings ?? {}))
      if (value !== 'on')
        this.logger.warn(
          `PostgreSQL runs with ${name} = ${value}: after a crash it may forget revocations that were answered. Set it to on.`,
        );
  }

  /** Counted always, told once in a while. */
  #noteLost(error: unknown): void {
    if (!(error instanceof AuthorityLost)) return;
    this.#authority.counters.lost++;
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.#lostToldAtMs < LOST_TOLD_EVERY_MS) return;
    this.#lostToldAtMs = nowMs;
    this.logger.warn({ reason: error.message }, 'PostgreSQL could not show that it is the primary: answering 503');
  }

  async onApplicationShutdown(): Promise<void> {
    await this.#lists.end();
  }

  /**
   * Runs `change` in one transaction (READ COMMITTED), again from the start when PostgreSQL broke it off for a deadlock
   * or a conflict. `change` must do nothing outside the transaction.
   * @param change answers with the result, or with what is still to be written, which goes out with the commit
   * @param first a reading that goes out with the beginning; `change` gets its rows
   */
  transaction<T>(change: Change<T>, first?: Statement): Promise<T> {
    return this.transactionAfter(first ? [first] : [], (tx, [found = []]) => change(tx, found));
  }

  /** The same for a change that begins with several statements, locks and readings, which go out with the beginning. */
  async transactionAfter<T>(first: readonly Statement[], change: ChangeAfter<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(change, first);
      } catch (error) {
        if (attempt >= ATTEMPTS_MAX || !['40001', '40P01'].includes(sqlState(error) ?? '')) throw error;
      }
    }
  }

  async #once<T>(change: ChangeAfter<T>, first: readonly Statement[]): Promise<T> {
    const runner = this.source.createQueryRunner();
    try {
      const connection: PreparedClient = await runner.connect();
      connection.behindCommit = [];
      try {
        // Answered before anything can be written, so that nothing is written outside the transaction.
        const [, ...found] = await send(connection, [BEGIN, ...first]);
        const outcome = await change(runner.manager, found);
        if (!(outcome instanceof Last)) {
          await commit(connection, []);
          return outcome;
        }
        return outcome.result(await commit(connection, outcome.writes));
      } catch (error) {
        this.#noteLost(error);
        // A connection that cannot even roll back is used by nobody again.
        await runner.query('ROLLBACK').catch(() => connection.end());
        throw error;
      }
    } finally {
      await runner.release();
    }
  }

  /** One statement, prepared once for each connection under `name`: for the paths that are walked all the time. */
  async prepared<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    const { rows } = await this.#pool.query<Row>({ name, text, values });
    return rows;
  }

  /**
   * One prepared statement whose rows let somebody in: read on a connection whose server has shown, within the authority
   * window, that it still is the primary. When the window has passed the commit that shows it goes out ahead.
   * @throws AuthorityLost when it cannot
   */
  authoritative<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    return this.#lend(async (connection) => {
      const read = (): Promise<{ rows: Row[] }> => connection.query({ name, text, values });
      if (this.#authority.holds(connection)) return (await read()).rows;
      const [, { rows }] = await Promise.all([this.#authority.prove(connection), read()]);
      return rows;
    });
  }

  /**
   * One prepared statement behind a proof made for it. Where finding nothing is an answer by itself: nobody watches over
   * what is not there, so the authority window does not do.
   * @throws AuthorityLost when PostgreSQL cannot show that it is the primary
   */
  proved<Row extends QueryResultRow>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    return this.onOneConnection(async (here) => {
      await here.prove();
      return here.prepared<Row>(name, text, values);
    });
  }

  /**
   * Statements on one connection, each in a transaction of its own: what is read after a commit is read from the server
   * that made it.
   * @throws AuthorityLost when PostgreSQL warned at one of them
   */
  onOneConnection<T>(work: (here: OneConnection) => Promise<T>): Promise<T> {
    return this.#lend((connection) =>
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

  /** After an error the connection is used by nobody again. */
  async #lend<T>(work: (connection: PreparedClient) => Promise<T>): Promise<T> {
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

  /** One statement outside any transaction, planned for its values: for texts put together for one question. */
  async query<Row extends QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    const { rows } = await this.#pool.query<Row>({ text, values });
    return rows;
  }

  get #pool(): Pool {
    return (this.source.driver as unknown as { master: Pool }).master;
  }
}

/** Rows of a query inside a transaction. */
export async function rows<Row extends QueryResultRow>(tx: Tx, text: string, values: unknown[] = []): Promise<Row[]> {
  const answer: unknown = await tx.query(text, values);
  // TypeORM answers [rows, affected] for UPDATE and DELETE, and the rows alone for the rest.
  const isPair =
    Array.isArray(answer) && answer.length === 2 && Array.isArray(answer[0]) && typeof answer[1] === 'number';
  return (isPair ? answer[0] : answer) as Row[];
}

/**
 * Sends statements of a transaction together, for one wait instead of one each. PostgreSQL runs them in this order, each
 * with a snapshot of its own that sees what those before it did, locked and waited for.
 * @returns the rows of each
 * @throws what the first that failed was answered with; those after it have done nothing
 */
export async function inOrder(tx: Tx, statements: readonly Statement[]): Promise<QueryResultRow[][]> {
  return send(await tx.queryRunner!.connect(), statements);
}

/** Two writes as one statement, where neither looks at what the other does: each statement costs PostgreSQL an answer. */
export function together([first, firstValues = []]: Statement, [then, thenValues = []]: Statement): Statement {
  const renumbered = then.replace(/\$(\d+)/g, (_, n: string) => `$${Number(n) + firstValues.length}`);
  return [`WITH first AS (${first}) ${renumbered}`, [...firstValues, ...thenValues]];
}

/** Writes in the midst of a transaction what another change would end with. */
export async function writeNow<T>(tx: Tx, { writes, result }: Last<T>): Promise<T> {
  return result(await inOrder(tx, writes));
}

/** In one packet: for statements as small as these, the system calls cost more than the rest. */
async function send(connection: PreparedClient, statements: readonly Statement[]): Promise<QueryResultRow[][]> {
  const { stream } = connection.connection;
  stream.cork();
  const answers = statements.map(
    ([text, values]): Promise<{ rows: QueryResultRow[] }> => connection.query(text, values),
  );
  stream.uncork();
  const found = (await Promise.all(answers)).map(({ rows }) => rows);
  statements.forEach(([, , after], i) => {
    if (after) connection.behindCommit.push({ after, written: found[i]! });
  });
  return found;
}

/**
 * Commits with the last writes, and reads behind that what was asked to be read then.
 * @returns the rows of the writes
 * @throws AuthorityLost when PostgreSQL warned: the commit may not have reached the stand-by
 */
async function commit(connection: PreparedClient, writes: readonly Statement[]): Promise<QueryResultRow[][]> {
  const { warnings } = connection;
  const afterwards = [
    ...connection.behindCommit.map(({ after }) => after),
    ...writes.flatMap(([, , after]) => after ?? []),
  ];
  // After a write that failed, PostgreSQL takes the commit for a rollback.
  const found = await send(connection, [
    ...writes,
    COMMIT,
    ...afterwards.flatMap(({ statement }) => (statement ? [statement] : [])),
  ]);
  mustBeUnwarned(connection, warnings);
  let place = writes.length + 1;
  for (const { after, written } of connection.behindCommit) after.take(written, after.statement ? found[place++]! : []);
  return found.slice(0, writes.length);
}

/** The SQLSTATE of an error that PostgreSQL answered with. */
export function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** The unique constraint that an insert or update ran into. */
export function constraintHit(error: unknown): string | undefined {
  if (sqlState(error) !== '23505') return undefined;
  const { driverError, constraint } = error as { driverError?: { constraint?: string }; constraint?: string };
  return constraint ?? driverError?.constraint;
}

const NETWORK = [
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EAI_AGAIN',
];
/** Connection faults, shutting down, too many connections, out of resources, given up waiting, read-only stand-by. */
const AWAY = /^(08|53|57P|58)|^57014$|^55P03$|^25006$|^40001$|^40P01$|^25P03$/;
const AWAY_WORDS =
  /Connection terminated|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|not queryable|Cannot use a pool after calling end|DataSource is not (initialized|set)|Driver not Connected/i;

/** Whether an error says that PostgreSQL is away or overwhelmed, rather than that the question was wrong. */
export function isDatabaseAway(error: unknown): boolean {
  const state = sqlState(error);
  if (state && (NETWORK.includes(state) || AWAY.test(state))) return true;
  if (error instanceof AuthorityLost) return true;
  const { message, cause, driverError } = (error ?? {}) as { message?: string; cause?: unknown; driverError?: unknown };
  if (error instanceof AggregateError && error.errors.some(isDatabaseAway)) return true;
  if (driverError && driverError !== error && isDatabaseAway(driverError)) return true;
  return AWAY_WORDS.test(message ?? '') || (cause !== undefined && cause !== error && isDatabaseAway(cause));
}
