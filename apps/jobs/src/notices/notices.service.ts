import type { NoticeKind } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import type { EntityManager } from 'typeorm';
import type { JobsConfig } from '../config.js';

export interface Notice {
  /** Identifies the event: a second notice with the same key is not written. */
  key: string;
  kind: NoticeKind;
  tokenId: string;
  details: Record<string, unknown>;
}

export type Channel = 'email' | 'webhook';

export function openChannels(config: JobsConfig): Channel[] {
  return [
    ...(config.SMTP_URL ? (['email'] as const) : []),
    ...(config.NOTICE_WEBHOOK_URL ? (['webhook'] as const) : []),
  ];
}

/**
 * Writes notices and their deliveries. Recipients are the owner of a personal token, the project's owners for a
 * project token, and the administrators too for `reported`, by every configured channel that the person has not
 * switched off for this kind. Disabled people, and the person who acted (`details.byUserId`), receive nothing. A notice
 * whose key exists is skipped.
 *
 * In: notices as JSON, the configured channels. Out: how many were new.
 */
export async function raiseNotices(db: EntityManager, config: JobsConfig, notices: readonly Notice[]): Promise<number> {
  if (notices.length === 0) return 0;
  const rows: { raised: number }[] = await db.query(
    `WITH raised AS (
       INSERT INTO notices (id, key, kind, token_id, details)
       SELECT n.id, n.key, n.kind, n."tokenId", n.details
       FROM jsonb_to_recordset($1::jsonb) AS n(id uuid, key text, kind text, "tokenId" uuid, details jsonb)
       ORDER BY n.key
       ON CONFLICT (key) DO NOTHING
       RETURNING id, kind, token_id, details
     ), recipients AS (
       SELECT r.id, r.kind, u.id AS user_id FROM raised r
       JOIN tokens t ON t.id = r.token_id
       LEFT JOIN members m ON m.project_id = t.project_id AND m.role = 'owner'
       JOIN users u ON u.id = coalesce(t.owner_user_id, m.user_id) AND u.disabled_at IS NULL
         AND u.id::text IS DISTINCT FROM r.details ->> 'byUserId'
       UNION SELECT r.id, r.kind, a.id FROM raised r
       JOIN users a ON r.kind = 'reported' AND a.role = 'admin' AND a.disabled_at IS NULL
     ), deliveries AS (
       INSERT INTO notice_deliveries (notice_id, user_id, channel)
       SELECT p.id, p.user_id, channel FROM recipients p CROSS JOIN unnest($2::text[]) AS channel
       LEFT JOIN notice_choices c ON c.user_id = p.user_id AND c.kind = p.kind
       WHERE coalesce(CASE channel WHEN 'email' THEN c.email ELSE c.webhook END, true)
     )
     SELECT count(*)::int AS raised FROM raised`,
    [JSON.stringify(notices.map((n) => ({ id: newId(), ...n }))), openChannels(config)],
  );
  return rows[0]!.raised;
}
