import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { checkSchema, type ReadRows } from './schema.js';
import { StartError } from './service.js';

/** The SQLSTATE of an error from PostgreSQL, or the code of a network error. */
export function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
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
/**
 * Connection faults, a refused sign-in or database, shutdown, too many connections, out of resources, timeouts, conflicts,
 * read-only standby.
 */
const UNAVAILABLE = /^(08|28|53|57P|58)|^3D000$|^57014$|^55P03$|^25006$|^40001$|^40P01$|^25P03$/;
const UNAVAILABLE_WORDS =
  /Connection terminated|timeout exceeded when trying to connect|timeout expired|Query read timeout|Client has encountered a connection error|not queryable|Cannot use a pool after calling end|DataSource is not (initialized|set)|Driver not Connected/i;

/** Whether an error means that PostgreSQL is unavailable or overloaded, rather than that the statement was wrong. */
export function isPostgresUnavailable(error: unknown): boolean {
  const state = sqlState(error);
  if (state && (NETWORK.includes(state) || UNAVAILABLE.test(state))) return true;
  const { message, cause, driverError } = (error ?? {}) as { message?: string; cause?: unknown; driverError?: unknown };
  if (error instanceof AggregateError && error.errors.some(isPostgresUnavailable)) return true;
  if (driverError && driverError !== error && isPostgresUnavailable(driverError)) return true;
  return (
    UNAVAILABLE_WORDS.test(message ?? '') || (cause !== undefined && cause !== error && isPostgresUnavailable(cause))
  );
}

/** A connection of `pg`, as far as it is needed here. */
export interface PostgresConnection {
  /** Of the server process, as reported to the client. */
  readonly processID?: number | null;
  connect(): Promise<unknown>;
  query(sql: string): Promise<{ rows: unknown[] }>;
  end(): Promise<void>;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

export interface PostgresCheck {
  /** A connection that is not opened yet, with the settings that the service will use. */
  readonly connection: () => PostgresConnection;
  /** Of the service. */
  readonly version: string;
  /** Most connections that this process opens. */
  readonly poolSize: number;
  /** What a pooler in between is: an error, or a reason to warn that it must keep sessions. */
  readonly pooler: 'refused' | 'warned';
  readonly logger: Logger;
  /** How long to wait for PostgreSQL. Default 10 000. */
  readonly patienceMs?: number;
}

const PATIENCE_MS = 10_000;
const PAUSE_MS = 500;

/**
 * Waits until PostgreSQL is available, and checks that this service can use it: no pooler in between, a schema of this
 * version. Warns when there are not enough connections for it. Logs one line while it waits.
 * @throws StartError that names what is wrong; otherwise PostgreSQL's own error, after `patienceMs`
 */
export async function checkPostgres(check: PostgresCheck): Promise<void> {
  const { logger, patienceMs = PATIENCE_MS } = check;
  const startedAt = performance.now();
  for (let attempt = 1; ; attempt++) {
    try {
      await checkOnce(check);
      if (attempt > 1) logger.info('PostgreSQL is available');
      return;
    } catch (error) {
      const { message } = error as Error;
      if (/unsupported startup parameter/.test(message)) throw new StartError(`${POOLER}: it answered "${message}"`);
      if (!isPostgresUnavailable(error)) throw error;
      if (performance.now() - startedAt > patienceMs) {
        const reason = message || sqlState(error);
        throw new StartError(`PostgreSQL is unavailable since ${patienceMs / 1000} s: ${reason}`);
      }
      if (attempt === 1) logger.warn({ reason: message || sqlState(error) }, 'PostgreSQL is unavailable; retrying');
      await sleep(PAUSE_MS);
    }
  }
}

const POOLER =
  'a pooler (PgBouncer, for one) stands between this service and PostgreSQL. Let DATABASE_URL name PostgreSQL itself; the service has a pool of its own';

async function checkOnce({ connection, version, poolSize, pooler, logger }: PostgresCheck): Promise<void> {
  const client = connection();
  client.on('error', () => undefined); // the next query fails with it
  try {
    await client.connect();
    const read: ReadRows = async <Row>(sql: string) => (await client.query(sql)).rows as Row[];
    const [session] = await read<{ pid: number; usable: number; used: number }>(SESSIONS);
    if (session!.pid !== client.processID) {
      if (pooler === 'refused') throw new StartError(POOLER);
      logger.warn(
        'a pooler stands between this service and PostgreSQL: it must keep sessions (pool_mode = session), or locks are lost',
      );
    }
    const later = await checkSchema(version, read);
    if (later.length > 0)
      logger.info({ migrations: later }, 'the database was migrated to a later version, which this one can use');
    const { usable, used } = session!;
    if (used + poolSize > usable)
      logger.warn(
        { usable, inUse: used, poolSize },
        "PostgreSQL has too few connections: those in use and this service's pool exceed max_connections. Raise it, or lower DATABASE_POOL_SIZE",
      );
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Out: the server process, the connections that services can use, and those in use by others. Others' `backend_type` is hidden. */
const SESSIONS = `SELECT pg_backend_pid() AS pid,
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0) AS usable,
  (SELECT count(*)::int FROM pg_stat_activity WHERE datid IS NOT NULL AND pid <> pg_backend_pid()) AS used`;
