import type { Denial, DenialReason } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { notFound } from '../http/index.js';

/** How long a denial can be looked up; jobs removes it some time later. */
const RETENTION_HOURS = 24;

interface DenialRow {
  request_id: string;
  at: Date;
  reason: DenialReason;
  token_id: string | null;
  route: string;
  method: string;
  ip: string;
  owner_user_id: string | null;
  project_id: string | null;
}

/** Why a request was refused: for administrators, and for actors who may see its token. */
@Injectable()
export class DenialsService {
  constructor(private readonly db: Database) {}

  /** @throws ApiError `not_found`, the same whether it does not exist or the caller may not see it */
  async read(actor: Actor, requestId: string): Promise<Denial> {
    const [row] = await this.db.query<DenialRow>(
      `SELECT d.request_id, d.at, d.reason, d.token_id, d.route, d.method, d.ip, t.owner_user_id, t.project_id
       FROM denials d LEFT JOIN tokens t ON t.id = d.token_id
       WHERE d.request_id = $1 AND d.at > now() - make_interval(hours => $2)`,
      [requestId, RETENTION_HOURS],
    );
    if (!row || !canSee(actor, row)) throw notFound('denial');
    return {
      requestId: row.request_id,
      at: row.at.toISOString(),
      reason: row.reason,
      tokenId: row.token_id,
      route: row.route,
      method: row.method,
      ip: row.ip,
    };
  }
}

function canSee(actor: Actor, row: DenialRow): boolean {
  if (actor.rights.everywhere) return actor.rights.holds('audit:read');
  if (row.project_id !== null) return actor.rights.holds('tokens:read', row.project_id);
  return row.owner_user_id !== null && row.owner_user_id === actor.userId && actor.rights.holds('tokens:read');
}
