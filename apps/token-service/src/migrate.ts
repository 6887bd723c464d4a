import { createHmac, hash, pbkdf2Sync, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { ADVISORY_LOCKS } from '@latchkey/contracts';
import { ConfigError, createLogger, loadConfig, type Settings, settingSchema } from '@latchkey/runtime';
import { DataSource, type MigrationInterface } from 'typeorm';
import { z } from 'zod';

/** Where the built migrations lie, seen from `src/` and from `dist/` alike. */
export const MIGRATIONS_DIR = path.join(import.meta.dirname, '../dist/migrations');

const optionalPassword = z.string().min(16, 'must have at least 16 characters').max(200).optional();

export const settings = {
  DATABASE_URL: {
    description: 'PostgreSQL as the owner of the schema',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:'),
  },
  SERVICE_DATABASE_PASSWORD: {
    description: 'Password that lets the role latchkey_service sign in; without it the role only groups rights',
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

/** Which roles are to sign in, by their passwords. */
export type RolePasswords = Partial<Record<'latchkey_service' | 'latchkey_jobs' | 'latchkey_retention', string>>;

type MigrationClass = new () => MigrationInterface;

async function migrations(): Promise<MigrationClass[]> {
  const files = readdirSync(MIGRATIONS_DIR).filter((file) => /^(\d{4}|\d{13})-.*\.js$/.test(file));
  const modules = await Promise.all(
    files.sort().map((file) => import(pathToFileURL(path.join(MIGRATIONS_DIR, file)).href)),
  );
  return modules.flatMap((module) => Object.values(module as Record<string, MigrationClass>));
}

/**
 * Brings the database to the newest schema, each migration in a transaction of its own. Several at once are safe: they
 * take turns, and the later ones find nothing to do.
 * @param url PostgreSQL as the owner of the schema
 * @param passwords roles that are to sign in; the server only ever sees their SCRAM verifiers
 * @returns the names of the migrations that were run
 */
export async function migrate(url: string, passwords: RolePasswords = {}): Promise<string[]> {
  const db = new DataSource({
    type: 'postgres',
    url,
    migrations: await migrations(),
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
    await lock.query('SELECT pg_advisory_lock($1)', [ADVISORY_LOCKS.migration]);
    const done = await db.runMigrations();
    for (const [role, password] of Object.entries(passwords)) await letSignIn(db, role, password);
    return done.map(({ name }) => name);
  } finally {
    await lock.query('SELECT pg_advisory_unlock($1)', [ADVISORY_LOCKS.migration]).finally(() => lock.release());
    await db.destroy();
  }
}

/** Roles are shared by all databases of a cluster, so another migration may be changing the same one: then once more. */
async function letSignIn(db: DataSource, role: string, password: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await db.query(`ALTER ROLE ${role} LOGIN PASSWORD '${scramVerifier(password)}'`);
      return;
    } catch (error) {
      if (attempt >= 5 || !/tuple concurrently updated/.test((error as Error).message)) throw error;
    }
  }
}

/** What PostgreSQL stores for a password (RFC 5803), so that the password itself stays out of statements and logs. */
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
    const done = await migrate(config.DATABASE_URL, passwords);
    logger.info({ migrations: done }, done.length ? 'the database has the newest schema' : 'nothing to migrate');
  } catch (error) {
    if (error instanceof ConfigError) logger.fatal(error.message);
    else logger.fatal({ err: error }, `cannot migrate: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
