import type { AlsoChanged, AuditAction } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { mayUseScopeOn } from './token.rules.js';

/** Most changes that are listed; of the rest the response has the number and the audit log's address. */
const LISTED_MAX = 100;
/** Most changes that are read, and most tokens of the closure whose changes are read. */
const READ_MAX = 1_000;
const MEMBERS_MAX = 200;

interface ChangeRow {
  id: string;
  at: Date;
  action: AuditAction;
  actor_id: string;
  actor_name: string;
  token_id: string | null;
  project_id: string | null;
  subject_type: NonNullable<AlsoChanged['items'][number]['subject']>['type'] | null;
  subject_id: string | null;
  subject_name: string | null;
  owner_user_id: string | null;
}

/**
 * In: exposure. Out: what its tokens changed before it, newest first: those changes remain and need review by people.
 * Left out: issued tokens, self-rotations, and the revocations that rotations and exposures cause.
 */
const SELECT_CHANGES = `SELECT e.id, e.at, e.action, e.actor_id, e.actor_name, e.token_id, e.project_id, e.subject_type,
    e.subject_id, e.subject_name, t.owner_user_id
  FROM (SELECT token_id FROM exposure_members WHERE exposure_id = $1 ORDER BY place LIMIT ${MEMBERS_MAX}) m
  JOIN audit_events e ON e.actor_id = m.token_id AND e.actor_type = 'token'
  JOIN exposures x ON x.id = $1 AND e.at <= x.created_at
  LEFT JOIN tokens t ON t.id = e.token_id
  WHERE e.action <> 'token.issued' AND NOT (e.action = 'token.rotated' AND e.token_id = e.actor_id)
    AND NOT (e.action = 'token.revoked' AND e.details ->> 'reason' IN ('superseded', 'exposed'))
  ORDER BY e.at DESC, e.id DESC LIMIT ${READ_MAX}`;

/** Changes that exposed tokens made and that remain after their revocation. */
@Injectable()
export class AlsoChangedService {
  constructor(private readonly db: Database) {}

  /** @param tokenId the token that was named, for the audit log's filter */
  async of(actor: Actor, exposureId: string, tokenId: string): Promise<AlsoChanged> {
    const found = await this.db.query<ChangeRow>(SELECT_CHANGES, [exposureId]);
    const items = found
      .filter((row) => canSee(actor, row))
      .slice(0, LISTED_MAX)
      .map((row) => ({
        id: row.id,
        at: row.at.toISOString(),
        action: row.action,
        by: { id: row.actor_id, name: row.actor_name },
        tokenId: row.token_id,
        projectId: row.project_id,
        subject: row.subject_type && {
          type: row.subject_type,
          id: row.subject_id ?? '',
          name: row.subject_name ?? '',
        },
      }));
    return { items, others: found.length - items.length, audit: `/v1/audit?actor=${tokenId}` };
  }
}

/** Whether the caller may see what was changed; readers of the audit log see everything. */
function canSee(
  actor: Actor,
  { token_id, project_id: projectId, owner_user_id: ownerUserId, ...row }: ChangeRow,
): boolean {
  const { rights } = actor;
  if (rights.holds('audit:read')) return true;
  if (token_id !== null) return mayUseScopeOn(actor, 'tokens:read', { ownerUserId, projectId });
  if (projectId !== null) return rights.holds('projects:read', projectId);
  return row.subject_type === 'user' && (rights.holds('users:read') || row.subject_id === actor.userId);
}
