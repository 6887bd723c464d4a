import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Client } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { columnsOf, nameOf, type Table, tablesOf } from './catalog.js';
import { type ProvenChain, verifyChain } from './chain.js';
import { connect, placeOf } from './connection.js';
import { type Contents, readContents } from './content.js';
import { BackupError } from './errors.js';
import type { Unlock } from './keys.js';
import type { Manifest } from './manifest.js';

/** Where rows are restored to. */
export interface RestoreTarget {
  /** An empty database, as the owner of the schema that it gets. */
  databaseUrl: string;
  /**
   * Runs migrations on it: those named, or all.
   * @throws Error when this version does not know one of them
   */
  migrate: (only?: readonly string[]) => Promise<void>;
  /** What to do after a failure, as the end of a sentence. Default: drop the database. */
  remedy?: string;
}

export interface RestoreOptions {
  file: string;
  unlock: Unlock;
  /** Called once the archive has been read to its end. */
  target: () => Promise<RestoreTarget>;
  /** Called with what is done now. Default: nothing. */
  progress?: (line: string) => void;
}

export interface Restored extends Contents {
  /** By their names as settings. */
  secrets: Record<string, string>;
  files: Record<string, Buffer>;
  /** Not `ok` when the chain was already broken in the database that was backed up. */
  chain: ProvenChain;
}

/**
 * Restores an archive into an empty database. The archive is read to its end before anything is written. The schema is
 * migrated to where it was, all rows are loaded in one transaction, and the newer migrations follow.
 * @throws BackupError when the archive is damaged or the database is not empty; a failure later than that leaves a
 *   schema without rows, and the message says so
 */
export async function restore(options: RestoreOptions): Promise<Restored> {
  const { file, unlock, progress = () => undefined } = options;
  progress('reading the archive');
  const { manifest } = await readContents(file, unlock);
  const { databaseUrl, migrate, remedy } = await options.target();
  await mustBeEmpty(databaseUrl);
  try {
    progress(`migrating to ${manifest.migrations.at(-1)}`);
    await migrate(manifest.migrations);
    const loaded = await load({ file, unlock }, databaseUrl, progress);
    progress('migrating to the newest schema');
    await migrate();
    progress('verifying the audit chain');
    return { ...loaded, chain: await chainOf(databaseUrl, manifest) };
  } catch (error) {
    const { message } = error as Error;
    const next = remedy ?? `drop the database ${placeOf(databaseUrl)}, create it again, and repeat`;
    throw new BackupError(`the restore failed: ${message}. What it has written so far is not usable: ${next}`, {
      cause: error,
    });
  }
}

/** @throws BackupError when the database has a table, or another client */
async function mustBeEmpty(databaseUrl: string): Promise<void> {
  const place = placeOf(databaseUrl);
  const db = await connect(databaseUrl);
  try {
    const tables = await db.query<{ name: string }>(
      `SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
       AND NOT relispartition ORDER BY 1`,
    );
    const [first] = tables.rows;
    if (first)
      throw new BackupError(
        `${place} is not empty: it has the table ${first.name}${tables.rows.length > 1 ? ` and ${tables.rows.length - 1} more` : ''}; restore into an empty database, which you create with CREATE DATABASE`,
      );
    const clients = await db.query<{ name: string }>(
      `SELECT coalesce(nullif(application_name, ''), usename::text) AS name FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY 1`,
    );
    if (clients.rows[0])
      throw new BackupError(
        `${place} is used by ${[...new Set(clients.rows.map(({ name }) => name))].join(', ')}; stop them, and repeat`,
      );
  } finally {
    await db.end();
  }
}

/** Loads every row in one transaction, which commits once the digests have been compared again. */
async function load(
  { file, unlock }: Pick<RestoreOptions, 'file' | 'unlock'>,
  databaseUrl: string,
  progress: (line: string) => void,
): Promise<Omit<Restored, 'chain'>> {
  const secrets: Record<string, string> = {};
  const files: Record<string, Buffer> = {};
  const db = await connect(databaseUrl);
  try {
    await db.query('BEGIN');
    let manifest: Manifest | undefined;
    let triggers: Trigger[] = [];
    const loaded: Record<string, number> = {};
    const contents = await readContents(file, unlock, {
      async manifest(read) {
        manifest = read;
        triggers = await triggersOn(db);
        await setTriggers(db, triggers, 'DISABLE');
        for (const month of read.audit.months) await db.query(monthOf(month));
        await removeRows(db, read.tables);
      },
      async table(name, parts) {
        progress(`loading ${name}`);
        const table = manifest!.tables.find((each) => each.name === name)!;
        loaded[name] = await loadTable(db, table, parts);
      },
      secret: (name, value) => {
        secrets[name] = value;
      },
      file: (name, data) => {
        files[name] = data;
      },
    });
    for (const [name, { rows }] of Object.entries(contents.digests.tables)) {
      const [stored] = (await db.query<{ rows: string }>(`SELECT count(*) AS rows FROM ${nameOf(db, name)}`)).rows;
      if (loaded[name] !== rows || Number(stored!.rows) !== rows)
        throw new BackupError(`${name} should have ${rows} rows and has ${stored!.rows} after loading ${loaded[name]}`);
    }
    for (const { name, value, isCalled } of contents.manifest.sequences)
      await db.query('SELECT setval($1::regclass, $2, $3)', [nameOf(db, name), value, isCalled]);
    await setTriggers(db, triggers, 'ENABLE');
    await db.query('COMMIT');
    for (const { name } of contents.manifest.tables) await db.query(`ANALYZE ${nameOf(db, name)}`);
    return { ...contents, secrets, files };
  } finally {
    await db.end();
  }
}

/** Rows that migrations insert are in the archive, as they became. */
async function removeRows(db: Client, tables: readonly Table[]): Promise<void> {
  const present = new Set((await tablesOf(db)).map(({ name }) => name));
  const missing = tables.find(({ name }) => !present.has(name));
  if (missing) throw new BackupError(`the archive has a table ${missing.name}, which its migrations do not make`);
  for (const { name } of tables.toReversed()) await db.query(`DELETE FROM ${nameOf(db, name)}`);
}

async function loadTable(db: Client, table: Table, parts: AsyncIterable<Buffer>): Promise<number> {
  const rows = db.query(copyFrom(`COPY ${nameOf(db, table.name)} (${columnsOf(db, table)}) FROM STDIN`));
  try {
    await pipeline(Readable.from(parts), rows);
  } catch (error) {
    if (error instanceof BackupError) throw error;
    throw new BackupError(`loading ${table.name}: ${(error as Error).message}`, { cause: error });
  }
  return rows.rowCount;
}

interface Trigger {
  table: string;
  name: string;
}

/** Triggers that act on inserted rows; what they write is in the archive. Those of foreign keys stay, and check. */
async function triggersOn(db: Client): Promise<Trigger[]> {
  const { rows } = await db.query<Trigger>(
    `SELECT c.relname::text AS table, t.tgname::text AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND NOT t.tgisinternal
       AND t.tgenabled = 'O' AND t.tgtype & 4 <> 0`,
  );
  return rows;
}

async function setTriggers(db: Client, triggers: readonly Trigger[], to: 'ENABLE' | 'DISABLE'): Promise<void> {
  for (const { table, name } of triggers)
    await db.query(`ALTER TABLE ${nameOf(db, table)} ${to} TRIGGER ${db.escapeIdentifier(name)}`);
}

/**
 * The partition of one month of the audit log, if it is missing. Migrating makes those from this month on only, and the
 * older ones' events would stay in the default partition.
 * @param month as 2026_01
 */
function monthOf(month: string): string {
  const [year, number] = month.split('_').map(Number) as [number, number];
  const [from, to] = [Date.UTC(year, number - 1), Date.UTC(year, number)].map((at) => new Date(at).toISOString());
  const partition = `public.audit_events_${month}`;
  return `DO $$ BEGIN
  IF to_regclass('${partition}') IS NULL THEN
    CREATE TABLE ${partition} PARTITION OF public.audit_events FOR VALUES FROM ('${from}') TO ('${to}');
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ${partition} FOR EACH STATEMENT EXECUTE FUNCTION public.audit_refuse_change();
  END IF;
END $$`;
}

async function chainOf(databaseUrl: string, manifest: Manifest): Promise<ProvenChain> {
  const db = await connect(databaseUrl);
  try {
    const chain = await verifyChain(db);
    const { head } = manifest.audit;
    if (chain.ok && head && (chain.head.seq !== head.seq || chain.head.hash !== head.hash))
      throw new BackupError(`the audit chain ends at ${chain.head.seq} and not at ${head.seq} as in the manifest`);
    return chain;
  } finally {
    await db.end();
  }
}
