import type { VerifierItem } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { lacksScope, notFound } from '../http/index.js';
import { callerOf, lapsedAfterMs } from '../invalidation/index.js';
import { LocksService } from './locks.service.js';

interface VerifierRow {
  verifier_id: string;
  name: string;
  caller: string;
  caller_token: string | null;
  token_name: string | null;
  version: string;
  routes_hash: string | null;
  created_at: Date;
  lease_ms: number;
  renewed_ms_ago: number;
  cursor_lag: number | null;
  last_confirmation_ms: number | null;
  ended: boolean;
}

/** Most verifiers listed; there are a few for each gateway and third party. */
const VERIFIERS_MAX = 1_000;

const SELECT_VERIFIERS = `SELECT v.verifier_id, v.name, v.caller, v.caller_token, t.name AS token_name, v.version, v.routes_hash,
  v.created_at, v.lease_ms, extract(epoch FROM now() - v.renewed_at)::float8 * 1000 AS renewed_ms_ago,
  CASE WHEN v.cursor_log = l.log
    THEN (SELECT count(*)::int FROM invalidations i WHERE i.xid >= v.cursor_xid) END AS cursor_lag,
  v.last_confirmation_ms::float8 AS last_confirmation_ms, v.ended_at IS NOT NULL AS ended
FROM invalidation_log l CROSS JOIN leases v LEFT JOIN tokens t
  ON t.id = coalesce(v.caller_token::text, substring(v.caller FROM '^token:([0-9a-f-]{36})$'))::uuid
WHERE v.released_at IS NULL`;

/** The verifiers that can decide from memory, for administrators. */
@Injectable()
export class VerifiersService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly audit: AuditService,
  ) {}

  async list(): Promise<{ items: VerifierItem[] }> {
    const found = await this.db.prepared<VerifierRow>(
      'verifiers',
      `${SELECT_VERIFIERS} ORDER BY v.created_at DESC, v.verifier_id LIMIT ${VERIFIERS_MAX}`,
      [],
    );
    return { items: found.map(toItem) };
  }

  /**
   * Ends a lease: its next renewal is refused. The row remains until the lease has certainly lapsed, and until then every
   * confirmation waits for it as for any other.
   * @throws ApiError `insufficient_scope`, `not_found`
   */
  async end(actor: Actor, id: string): Promise<VerifierItem> {
    return this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor);
      if (!now.rights.holds('system:write')) throw lacksScope(['system:write']);
      const [ended] = await change.read<{ fresh: boolean }>([
        `UPDATE leases v SET ended_at = coalesce(v.ended_at, now()) FROM leases before
         WHERE v.verifier_id = $1 AND before.verifier_id = v.verifier_id AND v.released_at IS NULL
         RETURNING before.ended_at IS NULL AS fresh`,
        [id],
      ]);
      const [row] = await change.read<VerifierRow>([`${SELECT_VERIFIERS} AND v.verifier_id = $1`, [id]]);
      if (!ended || !row) throw notFound('verifier');
      const item = toItem(row);
      if (ended.fresh) {
        this.audit.record(change, {
          actor: now,
          action: 'verifier.ended',
          subject: { type: 'verifier', id, name: row.name },
          details: { caller: row.caller },
        });
      }
      return item;
    });
  }
}

function toItem(row: VerifierRow): VerifierItem {
  return {
    id: row.verifier_id,
    name: row.name,
    caller: callerOf(row),
    version: row.version,
    routesHash: row.routes_hash,
    since: row.created_at.toISOString(),
    leaseEndsInMs: Math.max(0, Math.round(lapsedAfterMs(row.lease_ms) - row.renewed_ms_ago)),
    cursorLag: row.cursor_lag,
    lastConfirmationMs: row.last_confirmation_ms === null ? null : Math.round(row.last_confirmation_ms * 100) / 100,
    ended: row.ended,
  };
}
