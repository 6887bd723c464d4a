import type { Cursor, Invalidation, InvalidationKind } from '@latchkey/contracts';
import type { InvalidationStore, LeaseRequest, LeaseRow, LogReading } from './types.js';

/** One statement in a transaction of its own, prepared once for each connection under its name. */
export interface Statements {
  prepared<Row extends object>(name: string, text: string, values: unknown[]): Promise<Row[]>;
}

/**
 * Where this database stands in the world: another one after a restore into another server (system identifier), to an
 * earlier time or a fail-over (timeline), into another database, or into the same one (the table's own file).
 */
const INCARNATION = `(SELECT c.system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/' ||
  (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) || '/' ||
  pg_relation_filenode('invalidation_log') FROM pg_control_system() c)`;

interface LogRow {
  log: string;
  same_database: boolean;
}

/** The log and the leases in PostgreSQL. */
export class PostgresStore implements InvalidationStore {
  readonly #db: Statements;

  constructor(db: Statements) {
    this.#db = db;
  }

  async takeLease(request: LeaseRequest): Promise<'taken' | 'foreign' | 'too_many'> {
    const { verifierId, name, caller, cursor, leaseMs, callerLeasesMax } = request;
    const [row] = await this.#db.prepared<{ outcome: 'taken' | 'foreign' | 'too_many' }>(
      'lease_take',
      'SELECT lease_take($1, $2, $3, $4, $5::text::xid8, $6, $7) AS outcome',
      [verifierId, name, caller, cursor?.log ?? null, cursor?.xid ?? null, leaseMs, callerLeasesMax],
    );
    return row!.outcome;
  }

  async readLog(fromXid: string | null, limit: number): Promise<LogReading> {
    const [row] = await this.#db.prepared<
      LogRow & { xmin: string; removed_to: string; invalidations: Invalidation[] | null }
    >(
      'log_read',
      `SELECT l.log, l.incarnation = ${INCARNATION} AS same_database, l.removed_to::text AS removed_to,
         pg_snapshot_xmin(pg_current_snapshot())::text AS xmin,
         (SELECT jsonb_agg(jsonb_build_object('id', i.id, 'kind', i.kind, 'subject', i.subject, 'cut', i.cut,
            'xid', i.xid::text) ORDER BY i.xid)
          FROM (SELECT * FROM invalidations WHERE xid >= $1::text::xid8 ORDER BY xid LIMIT $2) i) AS invalidations
       FROM invalidation_log l`,
      [fromXid, limit + 1],
    );
    const { log, same_database: sameDatabase, xmin, removed_to: removedTo, invalidations } = row!;
    return { log, sameDatabase, xmin, removedTo, invalidations: invalidations ?? [] };
  }

  async renewLog(log: string, nobody: string, leaseMs: number): Promise<void> {
    await this.#db.prepared('log_renew', `SELECT log_renew($1, ${INCARNATION}, $2, $3)`, [log, nobody, leaseMs]);
  }

  async readLeases(): Promise<{ log: string; sameDatabase: boolean; leases: LeaseRow[] }> {
    const rows = await this.#db.prepared<
      LogRow & {
        verifier_id: string | null;
        name: string;
        renewal: string;
        cursor_log: string | null;
        cursor_xid: string | null;
        lease_ms: number;
      }
    >(
      'leases_read',
      `SELECT l.log, l.incarnation = ${INCARNATION} AS same_database, v.verifier_id, v.name, v.renewal::text AS renewal,
         v.cursor_log, v.cursor_xid::text AS cursor_xid, v.lease_ms
       FROM invalidation_log l LEFT JOIN leases v ON true`,
      [],
    );
    const leases: LeaseRow[] = [];
    for (const row of rows) {
      if (row.verifier_id === null) continue;
      const cursor: Cursor | null =
        row.cursor_log !== null && row.cursor_xid !== null ? { log: row.cursor_log, xid: row.cursor_xid } : null;
      leases.push({ verifierId: row.verifier_id, name: row.name, renewal: row.renewal, cursor, leaseMs: row.lease_ms });
    }
    return { log: rows[0]!.log, sameDatabase: rows[0]!.same_database, leases };
  }

  async deleteLease(verifierId: string, renewal: string): Promise<boolean> {
    const deleted = await this.#db.prepared(
      'lease_delete',
      'DELETE FROM leases WHERE verifier_id = $1 AND renewal = $2::text::xid8 RETURNING 1',
      [verifierId, renewal],
    );
    return deleted.length > 0;
  }

  async releaseLease(verifierId: string, caller: string): Promise<boolean> {
    const deleted = await this.#db.prepared(
      'lease_release',
      'DELETE FROM leases WHERE verifier_id = $1 AND caller = $2 RETURNING 1',
      [verifierId, caller],
    );
    return deleted.length > 0;
  }

  async pruneLog(keepMs: number, limit: number): Promise<number> {
    const [row] = await this.#db.prepared<{ removed: number }>('log_prune', 'SELECT log_prune($1, $2) AS removed', [
      keepMs,
      limit,
    ]);
    return row!.removed;
  }
}

/**
 * Inserts invalidations, given as a JSON list of `{id, kind, subject, cut}`, in the transaction of the change that they
 * tell of. Answers the `xid` for each, which is the same.
 */
export const INSERT_INVALIDATIONS = `INSERT INTO invalidations (id, kind, subject, cut, created_at)
  SELECT id, kind, subject, cut, now() FROM jsonb_to_recordset($1::jsonb) AS i(id uuid, kind text, subject text, cut boolean)
  RETURNING xid::text AS xid`;

/** What a change says has ceased to be true. */
export interface Narrowing {
  /** Of the invalidation; default: a new one. */
  readonly id?: string;
  readonly kind: InvalidationKind;
  /** The token, person or project; empty for `everything` and `misses`. */
  readonly subject: string;
  /** Streams end at once; otherwise they are checked again first. */
  readonly cut: boolean;
}
