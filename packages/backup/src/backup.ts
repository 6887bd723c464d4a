import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { ADVISORY_LOCKS } from '@latchkey/contracts';
import { versionIn } from '@latchkey/runtime';
import { type Client, DatabaseError } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { type AddEntry, PART_BYTES, writeArchive } from './archive.js';
import { columnsOf, LEFT_OUT, monthsOf, nameOf, sequencesOf, type Table, tablesOf } from './catalog.js';
import { connect, placeOf } from './connection.js';
import { partName, readContents } from './content.js';
import { BackupError, reasonOf } from './errors.js';
import { encryption, type Lock } from './keys.js';
import { Digesting, type Digests, FORMAT, fingerprintOf, type Manifest } from './manifest.js';

export interface BackupOptions {
  /** PostgreSQL as the owner of the schema. */
  databaseUrl: string;
  /** By their names as settings, such as TOKEN_PEPPERS. */
  secrets: Readonly<Record<string, string>>;
  /** By the names that they have in the archive. */
  files: Readonly<Record<string, Buffer>>;
  /** The archive, which does not exist yet. */
  file: string;
  lock: Lock;
  /** Called with what is done now. Default: nothing. */
  progress?: (line: string) => void;
  /** Of scrypt; lower in tests only. */
  workFactor?: number;
}

export interface BackupResult {
  file: string;
  bytes: number;
  manifest: Manifest;
  digests: Digests;
}

/**
 * Writes one encrypted archive of the database as it is at one moment, with the secrets and files. Services go on meanwhile;
 * migrations, and the removal of old audit events, wait until the rows are read. The archive is read back and compared
 * before it gets its name; until then, and when anything fails, only `<file>.partial` exists, which is removed.
 * @throws BackupError
 */
export async function backup(options: BackupOptions): Promise<BackupResult> {
  const { file, progress = () => undefined } = options;
  const { encrypter, unlock } = await encryption(options.lock, options.workFactor);
  await mustBeFree(file);
  const partial = `${file}.partial`;
  await mustBeFree(partial);
  try {
    await writeArchive(partial, encrypter, (add) => fill(add, options));
    progress('reading it back');
    const contents = await readContents(partial, unlock);
    const bytes = await flushed(partial);
    await rename(partial, file);
    await flushed(path.dirname(file));
    return { file, bytes, ...contents };
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

async function mustBeFree(file: string): Promise<void> {
  const existing = await open(file).catch((error) => {
    if (error.code === 'ENOENT') return null;
    throw new BackupError(`${file} cannot be written: ${reasonOf(error)}`);
  });
  await existing?.close();
  if (existing)
    throw new BackupError(`${file} exists; a backup overwrites nothing: remove it, or choose another name with --out`);
}

/** Flushes a file or folder, and returns its length. */
async function flushed(place: string): Promise<number> {
  const handle = await open(place);
  try {
    await handle.sync();
    return (await handle.stat()).size;
  } finally {
    await handle.close();
  }
}

async function fill(add: AddEntry, options: BackupOptions): Promise<void> {
  const { secrets, files, progress = () => undefined } = options;
  const digests: Digests = { tables: {}, secrets: {}, files: {} };
  await inSnapshot(options.databaseUrl, async (db) => {
    const manifest = await manifestOf(db, options);
    await add('manifest.json', json(manifest));
    for (const table of manifest.tables) {
      progress(`reading ${table.name}`);
      digests.tables[table.name] = await addTable(add, db, table);
    }
  });
  const addWhole = async (name: string, data: Buffer) => {
    const digesting = new Digesting();
    digesting.add(data);
    await add(name, data);
    return digesting.content;
  };
  for (const [name, value] of sorted(secrets))
    digests.secrets[name] = await addWhole(`secrets/${name}`, Buffer.from(value));
  for (const [name, data] of sorted(files)) digests.files[name] = await addWhole(`files/${name}`, data);
  await add('digests.json', json(digests));
}

const json = (value: object): Buffer => Buffer.from(`${JSON.stringify(value, null, 2)}\n`);

const sorted = <T>(values: Readonly<Record<string, T>>): [string, T][] =>
  Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1));

/**
 * Runs in one read-only transaction, which gets no transaction id, so that no invalidation's confirmation waits for it.
 * It shares two locks with those who change tables: they would wait for the tables' locks instead, and everyone else
 * behind them.
 */
async function inSnapshot(url: string, use: (db: Client) => Promise<void>): Promise<void> {
  const db = await connect(url);
  try {
    await db.query('SELECT pg_advisory_lock_shared($1)', [ADVISORY_LOCKS.migration]);
    await db.query(`SELECT pg_advisory_lock_shared(hashtextextended('latchkey audit partitions', 0))`);
    await db.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await use(db);
    await db.query('COMMIT');
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    const hint = error.code === '42501' ? '; connect as the owner of the schema' : '';
    throw new BackupError(`reading ${placeOf(url)} failed: ${error.message}${hint}`, { cause: error });
  } finally {
    await db.end();
  }
}

async function manifestOf(db: Client, { databaseUrl, secrets, files }: BackupOptions): Promise<Manifest> {
  const migrations = await db
    .query<{ name: string }>('SELECT name FROM public.migrations ORDER BY id')
    .catch((error) => {
      if (error.code !== '42P01') throw error;
      throw new BackupError(`${placeOf(databaseUrl)} has no table migrations; it is no database of Latchkey`);
    });
  const state = await db.query<State>(STATE);
  const { madeAt, newestEventAt, head, ...server } = state.rows[0]!;
  return {
    format: FORMAT,
    id: randomUUID(),
    madeAt: madeAt.toISOString(),
    latchkeyVersion: versionIn(new URL('../package.json', import.meta.url)),
    ...server,
    audit: { newestEventAt: newestEventAt?.toISOString() ?? null, head, months: await monthsOf(db) },
    migrations: migrations.rows.map(({ name }) => name),
    tables: await tablesOf(db),
    leftOut: Object.keys(LEFT_OUT),
    sequences: await sequencesOf(db),
    secrets: sorted(secrets).map(([name, value]) => ({ name, fingerprint: fingerprintOf(name, value) })),
    files: sorted(files).map(([name]) => name),
  };
}

interface State extends Pick<Manifest, 'log' | 'postgresqlVersion' | 'systemIdentifier'> {
  madeAt: Date;
  newestEventAt: Date | null;
  head: { seq: number; hash: string } | null;
}

const STATE = `
SELECT now() AS "madeAt", current_setting('server_version') AS "postgresqlVersion",
  (SELECT system_identifier::text FROM pg_control_system()) AS "systemIdentifier",
  (SELECT log::text FROM public.invalidation_log) AS log,
  (SELECT max(at) FROM public.audit_events) AS "newestEventAt",
  (SELECT json_build_object('seq', seq, 'hash', encode(hash, 'hex')) FROM public.audit_links ORDER BY seq DESC LIMIT 1) AS head`;

async function addTable(add: AddEntry, db: Client, table: Table) {
  const digesting = new Digesting();
  let waiting: Uint8Array[] = [];
  let bytes = 0;
  let part = 0;
  const addPart = async () => {
    const data = Buffer.concat(waiting);
    [waiting, bytes] = [[], 0];
    digesting.add(data);
    await add(`tables/${table.name}/${partName(part++)}`, data);
  };
  const rows = db.query(copyTo(`COPY (SELECT ${columnsOf(db, table)} FROM ${nameOf(db, table.name)}) TO STDOUT`));
  for await (const chunk of rows as AsyncIterable<Buffer>) {
    waiting.push(chunk);
    bytes += chunk.length;
    if (bytes >= PART_BYTES) await addPart();
  }
  if (bytes > 0) await addPart();
  return { ...digesting.content, rows: digesting.rows };
}
