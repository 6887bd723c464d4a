import type { Client } from 'pg';
import { BackupError } from './errors.js';

/** Tables whose rows stay out of a backup, and why. */
export const LEFT_OUT: Readonly<Record<string, string>> = {
  migrations: 'the schema is made by running the migrations that the manifest names',
  authority_proofs: 'one row for each connection of a running token-service',
  leases:
    'verifiers that run now; the longest lease ever granted is in invalidation_log, and confirmations wait for it',
  lease_strikes: 'refers to leases, by transactions of this server',
  lease_waiting: 'verifiers that run now and wait for a lease',
  sessions: 'one that ended after the backup must not be valid again; people sign in again',
  password_resets: 'a code that was used after the backup must not be valid again',
};

export interface Table {
  name: string;
  /** Without generated ones. */
  columns: string[];
}

export interface Sequence {
  name: string;
  value: string;
  isCalled: boolean;
}

/** Tables of the schema: not partitions, and none of an extension. */
const TABLES = `
SELECT c.relname::text AS name,
  ARRAY(SELECT a.attname::text FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
  ARRAY(SELECT DISTINCT f.relname::text FROM pg_constraint k JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f' AND k.conrelid = c.oid AND k.confrelid <> c.oid) AS "refersTo"
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1`;

/** Sequences of the schema, but for those of tables that stay out ($1). */
const SEQUENCES = `
SELECT c.relname::text AS name FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S'
  AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i', 'e') AND t.relname = ANY ($1))
ORDER BY 1`;

/** Months of the audit log that have a partition of their own. */
const MONTHS = `
SELECT right(c.relname, 7) AS month FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('public.audit_events') AND c.relname ~ '^audit_events_\\d{4}_\\d{2}$' ORDER BY 1`;

/**
 * The tables whose rows are in a backup, each behind those that it refers to.
 * @throws BackupError when two tables refer to each other
 */
export async function tablesOf(db: Client): Promise<Table[]> {
  const { rows } = await db.query<Table & { refersTo: string[] }>(TABLES);
  const waiting = rows.filter(({ name }) => !(name in LEFT_OUT));
  const ordered: Table[] = [];
  while (waiting.length > 0) {
    const next = waiting.findIndex(({ refersTo }) => !waiting.some(({ name }) => refersTo.includes(name)));
    if (next < 0)
      throw new BackupError(
        `the tables ${waiting.map(({ name }) => name).join(', ')} refer to each other, so that none can be restored first`,
      );
    const { name, columns } = waiting.splice(next, 1)[0] as Table;
    ordered.push({ name, columns });
  }
  return ordered;
}

export async function sequencesOf(db: Client): Promise<Sequence[]> {
  const { rows } = await db.query<{ name: string }>(SEQUENCES, [Object.keys(LEFT_OUT)]);
  const sequences: Sequence[] = [];
  for (const { name } of rows) {
    const sql = `SELECT last_value::text AS value, is_called AS "isCalled" FROM ${nameOf(db, name)}`;
    const [state] = (await db.query<Omit<Sequence, 'name'>>(sql)).rows;
    sequences.push({ name, ...state! });
  }
  return sequences;
}

export async function monthsOf(db: Client): Promise<string[]> {
  return (await db.query<{ month: string }>(MONTHS)).rows.map(({ month }) => month);
}

/** A table or sequence of the schema, quoted. */
export const nameOf = (db: Client, name: string): string => `public.${db.escapeIdentifier(name)}`;

/** Columns as a list in SQL. */
export const columnsOf = (db: Client, { columns }: Table): string =>
  columns.map((column) => db.escapeIdentifier(column)).join(', ');
