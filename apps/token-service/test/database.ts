import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { type TestDatabase, type TestDatabaseOptions, testDatabase } from '@latchkey/testing';
import { MIGRATIONS_DIR, migrate } from '../src/migrate.js';

const DEADLOCK_DETECTED = '40P01';

/** A database of the test's own, with the newest schema. */
export function migratedDatabase(where: Pick<TestDatabaseOptions, 'quiet'> = {}): Promise<TestDatabase> {
  const files = readdirSync(MIGRATIONS_DIR).filter((file) => file.endsWith('.js'));
  const fingerprint = files.map((file) => readFileSync(path.join(MIGRATIONS_DIR, file), 'utf8')).join('\n');
  return testDatabase({ ...where, migrate: async (url) => void (await migrate(url)), fingerprint });
}

/** The same database under one of the services' roles. */
export function asRole(url: string, role: 'latchkey_service' | 'latchkey_jobs' | 'latchkey_retention'): string {
  const under = new URL(url);
  under.searchParams.set('options', `-c role=${role}`);
  return under.href;
}

/**
 * Runs a change of the schema of a database that a service uses meanwhile. PostgreSQL ends one of two transactions that wait for
 * each other: when it is this one, it is run again.
 */
export async function changeSchema(database: Pick<TestDatabase, 'query'>, sql: string): Promise<void> {
  for (;;) {
    try {
      await database.query(sql);
      return;
    } catch (error) {
      if ((error as { code?: string }).code !== DEADLOCK_DETECTED) throw error;
    }
  }
}
