import { createHmac, hash, pbkdf2Sync, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { ADVISORY_LOCKS, MIGRATIONS } from '@latchkey/contracts';
import { ConfigError, createLogger, loadConfig, type Settings, settingSchema } from '@latchkey/runtime';
import { Client } from 'pg';
import { DataSource, type MigrationInterface, type QueryRunner } from 'typeorm';
import { z } from 'zod';

/** Directory of the built migrations, from `src/` and `dist/` alike. */
export const MIGRATIONS_DIR = path.join(import.meta.dirname, '../dist/migrations');

const optionalPassword = z.string().min(16, 'must have at least 16 characters').max(200).optional();

export const settings = {
  DATABASE_URL: {
    description: 'PostgreSQL as the owner of the schema',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:'),
  },
  SERVICE_DATABASE_PASSWORD: {
    description: 'Password of the role latchkey_service; without it the role cannot sign in',
    secret: true,
    schema: optionalPassword,
  },
  JOBS_DATABASE_PASSWORD: {
    description: 'The same for latchkey_jobs',
    secret: true,
    schema: optionalPassword,
  },
  RETENTION_DATABASE_PASSWORD: {
    description: 'The same for latchkey_retention',
    secret: true,
    schema: optionalPassword,
  },
} satisfies Settings;

/** How often another run of migrations is asked whether it has ended. */
const LOCK_POLL_MS = 200;

/** Passwords of the roles that can sign in. */
export type RolePasswords = Partial<Record<'latchkey_service' | 'latchkey_jobs' | 'latchkey_retention', string>>;

type MigrationClass = new () => MigrationInterface;

/**
 * The migrations of this version, in their order.
 * @param only names of those wanted; all by default
 * @throws Error naming one that this version does not have
 */
async function migrations(only?: readonly string[]): Promise<MigrationClass[]> {
  const files = readdirSync(MIGRATIONS_DIR).filter((file) => /^(\d{4}|\d{13})-.*\.js$/.test(file));
  const modules = await Promise.all(
    files.sort().map((file) => import(pathToFileURL(path.join(MIGRATIONS_DIR, file)).href)),
  );
  const all = modules.flatMap((module) => Object.values(module as Record<string, MigrationClass>));
  const unknown = only?.find((name) => !all.some((migration) => migration.name === name));
  if (unknown !== undefined)
    throw new Error(
      `this version has no migration ${unknown}; use the version that the database came from, or a later one`,
    );
  return only ? all.filter((migration) => only.includes(migration.name)) : all;
}

/**
 * Migrates the database to the newest schema, each migration in its own transaction. Safe to run concurrently: an advisory
 * lock serializes runs, and later ones find nothing to do.
 * @param url PostgreSQL as the owner of the schema
 * @param passwords of roles that can sign in; the server gets only their SCRAM verifiers
 * @param only names of the migrations to run, as for a restored backup; all by default
 * @throws Error when `only` has a name that this version does not know
 * @returns the names of the migrations that ran
 */
export async function migrate(url: string, passwords: RolePasswords = {}, only?: readonly string[]): Promise<string[]> {
  const db = new DataSource({
    type: 'postgres',
    url,
    migrations: await migrations(only),
    migrationsTransactionMode: 'each',
    migrationsTableName: 'migrations',
    installExtensions: false,
    poolSize: 2,
    connectTimeoutMS: 10_000,
    applicationName: 'latchkey-migrate',
  });
  await db.initialize();
  const lock = db.createQueryRunner();
  try {
    await awaitLock(lock);
    const done = await db.runMigrations();
    for (const [role, password] of Object.entries(passwords)) await allowSignIn(db, role, password);
    return done.map(({ name }) => name);
  } finally {
    await lock.query('SELECT pg_advisory_unlock($1)', [ADVISORY_LOCKS.migration]).finally(() => lock.release());
    await db.destroy();
  }
}

/** Polls: a statement that waits for a lock has a snapshot, and CREATE INDEX CONCURRENTLY would wait for that to end. */
async function awaitLock(db: QueryRunner): Promise<void> {
  for (;;) {
    const [row] = (await db.query('SELECT pg_try_advisory_lock($1) AS taken', [ADVISORY_LOCKS.migration])) as {
      taken: boolean;
    }[];
    if (row!.taken) return;
    await sleep(LOCK_POLL_MS);
  }
}

/**
 * Migrations that the database has and this version does not.
 * @param url PostgreSQL as the owner of the schema
 */
export async function laterMigrations(url: string): Promise<string[]> {
  const db = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await db.connect();
  try {
    const { rows } = await db.query<{ name: string }>('SELECT name FROM migrations ORDER BY id');
    return rows.map(({ name }) => name).filter((name) => !MIGRATIONS.includes(name));
  } finally {
    await db.end();
  }
}

/** Roles belong to the whole cluster, so a migration of another database can change the same one concurrently: then retries. */
async function allowSignIn(db: DataSource, role: string, password: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await db.query(`ALTER ROLE ${role} LOGIN PASSWORD '${scramVerifier(password)}'`);
      return;
    } catch (error) {
      if (attempt >= 5 || !/tuple concurrently updated/.test((error as Error).message)) throw error;
    }
  }
}

/** PostgreSQL's stored form of a password (RFC 5803), which keeps the password out of statements and logs. */
function scramVerifier(password: string): string {
  const salt = randomBytes(16);
  const iterations = 4_096;
  const salted = pbkdf2Sync(password.normalize('NFKC'), salt, iterations, 32, 'sha256');
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest();
  const storedKey = hash('sha256', hmac('Client Key'), 'base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${hmac('Server Key').toString('base64')}`;
}

async function main(): Promise<void> {
  const logger = createLogger('migrate');
  try {
    const config = loadConfig(settings);
    const passwords: RolePasswords = {
      ...(config.SERVICE_DATABASE_PASSWORD && { latchkey_service: config.SERVICE_DATABASE_PASSWORD }),
      ...(config.JOBS_DATABASE_PASSWORD && { latchkey_jobs: config.JOBS_DATABASE_PASSWORD }),
      ...(config.RETENTION_DATABASE_PASSWORD && { latchkey_retention: config.RETENTION_DATABASE_PASSWORD }),
    };
    const { values } = parseArgs({ options: { only: { type: 'string' } } });
    const done = await migrate(config.DATABASE_URL, passwords, values.only?.split(','));
    const later = await laterMigrations(config.DATABASE_URL);
    if (later.length)
      logger.warn({ migrations: later }, 'the database was migrated to a later version than this one, and stays there');
    logger.info(
      { migrations: done },
      done.length ? 'the database has the schema of this version' : 'nothing to migrate',
    );
  } catch (error) {
    if (error instanceof ConfigError) logger.fatal(error.message);
    else logger.fatal({ err: error }, `migration failed: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
