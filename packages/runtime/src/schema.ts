import { MIGRATIONS } from '@latchkey/contracts';
import { StartError } from './service.js';

/** Reads rows from PostgreSQL. */
export type ReadRows = <Row>(sql: string) => Promise<Row[]>;

/** Grants the services the right to read `migrations`. */
const READABLE_SINCE = MIGRATIONS.find((name) => name.startsWith('SchemaVersion'))!;

const STATE = `SELECT to_regclass('migrations') IS NOT NULL AS migrated,
  coalesce(has_table_privilege(to_regclass('migrations'), 'SELECT'), false) AS readable`;

/**
 * Compares the schema of the database with this version.
 * @param version of the service, such as `0.2.0`
 * @param known the migrations of this version, in their order
 * @throws StartError when the database lacks one of them, naming the first, or was migrated to a later version that the
 *   services of this one cannot use
 * @returns the migrations of later versions that the database has; this version can use it nevertheless
 */
export async function checkSchema(
  version: string,
  read: ReadRows,
  known: readonly string[] = MIGRATIONS,
): Promise<string[]> {
  const [state] = await read<{ migrated: boolean; readable: boolean }>(STATE);
  if (state?.migrated && !state.readable) throw lacking(version, READABLE_SINCE);
  const rows = state?.migrated ? await read<{ name: string }>('SELECT name FROM migrations ORDER BY id') : [];
  const run = new Set(rows.map(({ name }) => name));
  const missing = known.find((name) => !run.has(name));
  if (missing !== undefined) throw lacking(version, missing);
  const later = [...run].filter((name) => !known.includes(name));
  if (later.length === 0) return [];
  const [oldest] = await read<{ version: string }>('SELECT schema_min_version() AS version');
  if (compareVersions(version, oldest!.version) >= 0) return later;
  throw new StartError(
    `the database was migrated to a later version (${later.join(', ')}) and can be used from version ${oldest!.version} on; ` +
      `this is ${version}. Start version ${oldest!.version} or later, or restore a backup that was made before the upgrade`,
  );
}

const lacking = (version: string, migration: string): StartError =>
  new StartError(
    `the database lacks migrations of version ${version}, first ${migration}. Migrate it as the owner of the schema: ` +
      'node apps/token-service/dist/migrate.js (in containers: docker compose run --rm migrate)',
  );

/** By the three numbers. Negative: `a` is earlier. */
export function compareVersions(a: string, b: string): number {
  const numbers = (version: string) => version.split(/[.-]/, 3).map(Number);
  const [ofA, ofB] = [numbers(a), numbers(b)];
  return ofA.map((number, i) => number - (ofB[i] ?? 0)).find((difference) => difference !== 0) ?? 0;
}
