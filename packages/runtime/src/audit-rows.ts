import type { AuditAction, AuditEvent } from '@latchkey/contracts';

/** An audit event with its sequence number in the chain: a row of EVENT_COLUMNS. */
export interface AuditRow {
  id: string;
  seq: string | null;
  hash: Buffer | null;
  at: Date;
  actor_type: AuditEvent['actor']['type'];
  actor_id: string | null;
  actor_name: string;
  action: AuditAction;
  token_id: string | null;
  project_id: string | null;
  subject_type: NonNullable<AuditEvent['subject']>['type'] | null;
  subject_id: string | null;
  subject_name: string | null;
  ip: string | null;
  user_agent: string | null;
  request_id: string | null;
  details: Record<string, unknown>;
}

/** Columns of `audit_events e` and of `audit_links l`. */
export const EVENT_COLUMNS = `e.id, l.seq, l.hash, e.at, e.actor_type, e.actor_id, e.actor_name, e.action, e.token_id,
  e.project_id, e.subject_type, e.subject_id, e.subject_name, e.ip, e.user_agent, e.request_id, e.details`;

/** An event as the management API returns it, and as it is hashed and posted to a SIEM. */
export function toEvent(row: AuditRow): AuditEvent {
  return {
    id: row.id,
    seq: row.seq === null ? null : Number(row.seq),
    at: row.at.toISOString(),
    actor: { type: row.actor_type, id: row.actor_id, name: row.actor_name },
    action: row.action,
    tokenId: row.token_id,
    projectId: row.project_id,
    subject: row.subject_type && { type: row.subject_type, id: row.subject_id ?? '', name: row.subject_name ?? '' },
    ip: row.ip,
    userAgent: row.user_agent,
    requestId: row.request_id,
    details: row.details,
    hash: row.hash?.toString('hex') ?? null,
  };
}
