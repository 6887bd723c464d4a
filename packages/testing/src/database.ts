import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, type QueryResultRow } from 'pg';
import { sharedServers } from './shared-servers.js';

export interface TestDatabaseOptions {
  /**
   * Brings an empty database to the schema under test, and closes its connections before it returns. Runs once for
   * each `fingerprint`; every test database is then a copy.
   */
  migrate?: (url: string) => Promise<void>;
  /** Changes whenever `migrate` would do something else: the text of all migrations, say. Needed with `migrate`. */
  fingerprint?: string;
  /** On the server where no test keeps a transaction open for long. Default false. */
  quiet?: boolean;
}

/** A database of one test file's own. */
export interface TestDatabase extends AsyncDisposable {
  readonly url: string;
  readonly name: string;
  /** Runs one statement over a connection of its own, as superuser. */
  query<Row extends QueryResultRow = QueryResultRow>(sql: string, values?: unknown[]): Promise<Row[]>;
  /** Drops the database, even while clients are connected. */
  close(): Promise<void>;
}

/**
 * Makes a fresh PostgreSQL database, migrated when asked, for the caller alone. Close it in `afterAll`.
 *
 * @throws what `migrate` throws; TypeError when `migrate` comes without `fingerprint`
 */
export async function testDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const { migrate, fingerprint, quiet } = options;
  if (migrate && !fingerprint) throw new TypeError('testDatabase: migrate needs a fingerprint of what it will do');
  const servers = await sharedServers();
  const serverUrl = quiet ? servers.quietDatabaseUrl : servers.databaseUrl;
  const name = `test_${randomBytes(8).toString('hex')}`;
  try {
    await withClient(serverUrl, async (admin) => {
      const template = migrate ? await templateFor(admin, serverUrl, migrate, fingerprint as string) : 'template0';
      await createFrom(admin, name, template);
    });
  } catch (error) {
    servers.release();
    throw error;
  }
  const url = atDatabase(serverUrl, name);
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= withClient(serverUrl, async (admin) => {
      await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    }).finally(servers.release);
    return closing;
  };
  return {
    url,
    name,
    query: (sql, values) => withClient(url, async (client) => (await client.query(sql, values)).rows),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The name of the migrated template for this fingerprint; the first caller makes it, the others wait. */
async function templateFor(
  admin: Client,
  adminUrl: string,
  migrate: (url: string) => Promise<void>,
  fingerprint: string,
): Promise<string> {
  const digest = createHash('sha256').update(fingerprint).digest();
  const template = `template_${digest.toString('hex').slice(0, 24)}`;
  const lock = digest.readBigInt64BE().toString();
  // A lock of the connection, so a process that fails or dies halfway lets the next one try.
  await admin.query('SELECT pg_advisory_lock($1)', [lock]);
  try {
    const { rowCount } = await admin.query('SELECT 1 FROM pg_database WHERE datname = $1', [template]);
    if (rowCount) return template;
    const half = `${template}_new`;
    await admin.query(`DROP DATABASE IF EXISTS ${half} WITH (FORCE)`);
    await admin.query(`CREATE DATABASE ${half} TEMPLATE template0`);
    await migrate(atDatabase(adminUrl, half));
    await whenUnused(() => admin.query(`ALTER DATABASE ${half} RENAME TO ${template}`));
    return template;
  } finally {
    await admin.query('SELECT pg_advisory_unlock($1)', [lock]);
  }
}

async function createFrom(admin: Client, name: string, template: string): Promise<void> {
  await whenUnused(() => admin.query(`CREATE DATABASE ${name} TEMPLATE ${template}`));
}

/** A connection that has just been closed is gone for the server a moment later. */
async function whenUnused(action: () => Promise<unknown>): Promise<void> {
  for (const until = Date.now() + 5_000; ; await sleep(50)) {
    try {
      await action();
      return;
    } catch (error) {
      const inUse = (error as { code?: string }).code === '55006';
      if (!inUse || Date.now() >= until) throw error;
    }
  }
}

async function withClient<T>(url: string, use: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

function atDatabase(url: string, name: string): string {
  const moved = new URL(url);
  moved.pathname = `/${name}`;
  return moved.href;
}
