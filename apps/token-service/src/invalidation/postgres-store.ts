import type { Cursor, Invalidation, InvalidationKind, VerifierCaller } from '@latchkey/contracts';
import { HISTORY, INCARNATION, IS_CURRENT, STARTED } from '../database/index.js';
import type {
  InvalidationStore,
  LeaseRejection,
  LeaseRequest,
  LeaseRow,
  LeasesReading,
  LeaseTaken,
  LogReading,
  StoreConnection,
} from './types.js';

/** Statements, each in a transaction of its own, prepared once per connection under its name. */
export interface Statements {
  prepared<Row extends object>(name: string, text: string, values: unknown[]): Promise<Row[]>;
}

/** One connection. A statement that writes has committed without a warning when it resolves. */
export interface OneConnection extends Statements {
  /** Commits something, which only the primary can. */
  prove(): Promise<void>;
}

/** Access to PostgreSQL. */
export interface Connections extends Statements {
  onOneConnection<T>(work: (here: OneConnection) => Promise<T>): Promise<T>;
}

/**
 * Whether earlier confirmations are valid without asking the verifiers: the server's start has been recorded, and every
 * verifier that may remember results of another history has lapsed.
 */
export const IS_RECONFIRMED = `(SELECT ${IS_CURRENT} AND NOT EXISTS (SELECT 1 FROM leases WHERE caller = 'nobody')
  FROM invalidation_log l)`;

interface LogRow {
  log: string;
  history: string;
  is_current: boolean;
}

/**
 * All leases, and the log. In: nothing. Out: a row for each lease, joined with the log's; the log's alone when there is none.
 */
export const SELECT_LEASES = `SELECT l.log, ${IS_CURRENT} AS is_current,
    ${HISTORY}, v.verifier_id, v.name, v.renewal::text AS renewal,
    v.cursor_log, v.cursor_xid::text AS cursor_xid, v.lease_ms, v.caller, v.holder, v.key_salt,
    v.caller_token, t.name AS token_name, v.released_at IS NOT NULL AS released,
    v.ended_at IS NOT NULL AS ended
  FROM invalidation_log l LEFT JOIN leases v ON true LEFT JOIN tokens t ON t.id = v.caller_token`;

export type LeasesFound = readonly (LogRow & LeaseColumns)[];

export function leasesReading(rows: LeasesFound): LeasesReading {
  const leases = rows.filter(({ verifier_id: id }) => id !== null).map(toLease);
  const { log, is_current: isCurrent, history } = rows[0]!;
  return { log, isCurrent, history, leases };
}

/** The log and the leases on one connection. */
class PostgresConnection implements StoreConnection {
  readonly #db: OneConnection;

  constructor(db: OneConnection) {
    this.#db = db;
  }

  prove(): Promise<void> {
    return this.#db.prove();
  }

  async takeLease(request: LeaseRequest): Promise<LeaseTaken> {
    const { claim, name, version, routesHash, caller, cursor, leaseMs, leasesMax, fresh, presented, nonce } = request;
    const [row] = await this.#db.prepared<{
      outcome: 'taken' | LeaseRejection;
      verifier: string;
      salt: Buffer;
      remembered: boolean | null;
      renewal: string;
      given: string;
    }>(
      'lease_renew',
      `SELECT outcome, verifier, salt, remembered, renewed_by::text AS renewal, nonce AS given
       FROM lease_renew($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::xid8, $14, $15, $16, $17)`,
      [
        fresh.verifierId,
        fresh.keySalt,
        'hash' in claim ? claim.hash : null,
        'ownId' in claim ? claim.ownId : null,
        name,
        version,
        caller.id,
        caller.holder,
        caller.token?.id ?? null,
        caller.token ? [caller.token.id, ...caller.token.ancestors] : [],
        caller.token?.ownerId ?? null,
        cursor?.log ?? null,
        cursor?.xid ?? null,
        leaseMs,
        leasesMax,
        presented,
        nonce,
      ],
    );
    const { outcome, verifier, salt, remembered, renewal, given } = row!;
    if (outcome !== 'taken') return { outcome };
    // For people only: of its own, so that what the lease depends on stays as it is.
    if (routesHash !== null)
      await this.#db.prepared(
        'lease_routes',
        'UPDATE leases SET routes_hash = $2 WHERE verifier_id = $1 AND routes_hash IS DISTINCT FROM $2',
        [verifier, routesHash],
      );
    return { outcome, verifierId: verifier, keySalt: salt ?? fresh.keySalt, remembered, renewal, nonce: given };
  }

  async readLog(fromXid: string | null, limit: number): Promise<LogReading> {
    const [row] = await this.#db.prepared<
      LogRow & { xmin: string; removed_to: string; invalidations: Invalidation[] | null }
    >(
      'log_read',
      `SELECT l.log, ${HISTORY}, ${IS_CURRENT} AS is_current, l.removed_to::text AS removed_to,
         pg_snapshot_xmin(pg_current_snapshot())::text AS xmin,
         (SELECT jsonb_agg(jsonb_build_object('id', i.id, 'kind', i.kind, 'subject', i.subject, 'cut', i.cut,
            'xid', i.xid::text) ORDER BY i.xid)
          FROM (SELECT * FROM invalidations WHERE xid >= $1::text::xid8 ORDER BY xid LIMIT $2) i) AS invalidations
       FROM invalidation_log l`,
      [fromXid, limit + 1],
    );
    const { log, history, is_current: isCurrent, xmin, removed_to: removedTo, invalidations } = row!;
    return { log, history, isCurrent, xmin, removedTo, invalidations: invalidations ?? [] };
  }

  async followDatabase(log: string, unownedId: string, leaseMs: number, forgetful: string | null): Promise<void> {
    const sql = `SELECT log_follow($1, ${INCARNATION}, ${STARTED}, $2, $3, $4)`;
    await this.#db.prepared('log_follow', sql, [log, unownedId, leaseMs, forgetful]);
  }

  async readLeases(): Promise<LeasesReading> {
    return leasesReading(await this.#db.prepared<LeasesFound[number]>('leases_read', SELECT_LEASES, []));
  }

  async knownInvalidations(ids: readonly string[]): Promise<string[]> {
    const sql = 'SELECT id FROM invalidations WHERE id = ANY ($1::uuid[])';
    const rows = await this.#db.prepared<{ id: string }>('invalidations_known', sql, [ids]);
    return rows.map(({ id }) => id);
  }

  async deleteLease(verifierId: string, renewal: string): Promise<boolean> {
    const [row] = await this.#db.prepared<{ deleted: boolean }>(
      'lease_lapse',
      'SELECT lease_lapse($1, $2::text::xid8) AS deleted',
      [verifierId, renewal],
    );
    return row!.deleted;
  }
}

/** The log and the leases in PostgreSQL. */
export class PostgresStore implements InvalidationStore {
  readonly #db: Connections;

  constructor(db: Connections) {
    this.#db = db;
  }

  onOneConnection<T>(work: (here: StoreConnection) => Promise<T>): Promise<T> {
    return this.#db.onOneConnection((here) => work(new PostgresConnection(here)));
  }

  async releaseLease(verifierId: string, caller: string, claimHash: Uint8Array): Promise<boolean> {
    const released = await this.#db.prepared(
      'lease_release',
      `UPDATE leases SET released_at = now(), renewal = pg_current_xact_id()
       WHERE verifier_id = $1 AND caller = $2 AND claim = $3 AND released_at IS NULL RETURNING 1`,
      [verifierId, caller, claimHash],
    );
    return released.length > 0;
  }

  async strike({ verifierId, renewal, holder }: Pick<LeaseRow, 'verifierId' | 'renewal' | 'holder'>) {
    const [row] = await this.#db.prepared<{ until: Date | null }>(
      'lease_strike',
      'SELECT lease_strike($1, $2::text::xid8, $3) AS until',
      [verifierId, renewal, holder],
    );
    return row!.until;
  }

  async noteConfirmations(took: ReadonlyMap<string, number>): Promise<void> {
    const list = [...took].map(([id, ms]) => ({ id, ms }));
    await this.#db.prepared(
      'lease_confirmations',
      `UPDATE leases l SET last_confirmation_ms = n.ms
       FROM jsonb_to_recordset($1::jsonb) AS n(id uuid, ms real) WHERE l.verifier_id = n.id`,
      [JSON.stringify(list)],
    );
  }

  async announceKeys(ids: readonly string[]): Promise<number[]> {
    const rows = await this.#db.prepared<{ key: string; for_ms: number }>(
      'feed_keys_announce',
      'SELECT key, for_ms FROM feed_keys_announce($1)',
      [ids],
    );
    const known = new Map(rows.map(({ key, for_ms: ms }) => [key, ms]));
    return ids.map((id) => known.get(id) ?? 0);
  }

  async pruneLog(keepMs: number, limit: number): Promise<number> {
    const [row] = await this.#db.prepared<{ removed: number }>('log_prune', 'SELECT log_prune($1, $2) AS removed', [
      keepMs,
      limit,
    ]);
    return row!.removed;
  }
}

/** In: verifiers. Out: the callers of those that have a renewable lease, by verifier. */
export async function leaseCallers(db: Statements, verifierIds: readonly string[]): Promise<Map<string, string>> {
  const rows = await db.prepared<{ verifier_id: string; caller: string }>(
    'lease_callers',
    `SELECT verifier_id, caller FROM leases
     WHERE verifier_id = ANY ($1::uuid[]) AND released_at IS NULL AND ended_at IS NULL`,
    [verifierIds],
  );
  return new Map(rows.map(({ verifier_id: id, caller }) => [id, caller]));
}

/** The columns of `leases` that the protocol reads. */
interface LeaseColumns {
  verifier_id: string | null;
  name: string;
  renewal: string;
  cursor_log: string | null;
  cursor_xid: string | null;
  lease_ms: number;
  caller: string;
  holder: string;
  key_salt: Buffer | null;
  caller_token: string | null;
  token_name: string | null;
  released: boolean;
  ended: boolean;
}

/** The caller of a lease. Rows of replicas of version 0.1 name the token in `caller` only. */
export function callerOf(row: Pick<LeaseColumns, 'caller' | 'caller_token' | 'token_name'>): VerifierCaller {
  const id = row.caller_token ?? (row.caller.startsWith('token:') ? row.caller.slice('token:'.length) : null);
  return id === null ? { type: 'first_party' } : { type: 'token', id, name: row.token_name ?? '' };
}

function toLease(row: LeaseColumns): LeaseRow {
  const { cursor_log: log, cursor_xid: xid } = row;
  const cursor: Cursor | null = log !== null && xid !== null ? { log, xid } : null;
  return {
    verifierId: row.verifier_id!,
    name: row.name,
    callerId: row.caller,
    caller: callerOf(row),
    holder: row.holder,
    keySalt: row.key_salt,
    renewal: row.renewal,
    cursor,
    leaseMs: row.lease_ms,
    released: row.released,
    ended: row.ended,
  };
}

/**
 * Inserts invalidations in the transaction of their change, and ends the leases of verifiers whose calling token is thereby
 * revoked. In: a JSON list of `{id, kind, subject, cut}`. Out: for each the `xid`, which is the same.
 */
export const INSERT_INVALIDATIONS = `WITH given AS (
    SELECT id, kind, subject, cut FROM jsonb_to_recordset($1::jsonb) AS i(id uuid, kind text, subject text, cut boolean)
  ), ended AS (
    UPDATE leases l SET ended_at = now() FROM given WHERE given.cut AND l.ended_at IS NULL
      AND ((given.kind = 'token' AND given.subject = ANY (l.caller_lineage::text[]))
        OR (given.kind IN ('owner', 'project') AND given.subject = l.caller_owner::text)
        OR (given.kind = 'everything' AND (l.caller_owner IS NOT NULL OR l.caller LIKE 'token:%')))
  )
  INSERT INTO invalidations (id, kind, subject, cut, created_at) SELECT id, kind, subject, cut, now() FROM given
  RETURNING xid::text AS xid`;

/** What a change invalidates. */
export interface NewInvalidation {
  /** Default: a new id. */
  readonly id?: string;
  readonly kind: InvalidationKind;
  /** The token, person or project; empty for `everything` and `misses`. */
  readonly subject: string;
  /** Streams are cut at once; otherwise they are checked again first. */
  readonly cut: boolean;
}
