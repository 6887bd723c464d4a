import type { Receipt, RevocationReason, TokenFilter } from '@latchkey/contracts';
import type { Statement } from '../database/index.js';

/** Most tokens that one transaction revokes. */
export const STEP_ROWS_MAX = 1_000;

/** A row of `exposures`. */
export interface ExposureRow {
  id: string;
  actor_type: 'user' | 'token' | 'system';
  actor_id: string | null;
  actor_name: string;
  reason: RevocationReason;
  comment: string | null;
  /** Null: its tokens were named individually. */
  filter: TokenFilter | null;
  created_at: Date;
  ended_at: Date | null;
  confirmed_at: Date | null;
  tokens: number;
  successors: number;
  descendants: number;
  shown: number;
  receipt: Receipt | null;
}

const EXPOSURE = `id, actor_type, actor_id, actor_name, reason, comment, filter, created_at, ended_at, confirmed_at, tokens,
  successors, descendants, shown, receipt`;

/** In: exposure. Out: its row, if it exists. */
export const selectExposure = (id: string): Statement => [`SELECT ${EXPOSURE} FROM exposures WHERE id = $1`, [id]];

/** In: exposure. Out: its row, locked: steps and confirmations of one exposure run one at a time. */
export const lockExposure = (id: string): Statement => [
  `SELECT ${EXPOSURE} FROM exposures WHERE id = $1 FOR NO KEY UPDATE`,
  [id],
];

/** In: token, locked. Out: the newest exposure that named it individually. */
export const selectExposureOf = (tokenId: string): Statement => [
  `SELECT ${EXPOSURE} FROM exposures WHERE id = (
     SELECT max(m.exposure_id::text)::uuid FROM exposure_members m JOIN exposures e ON e.id = m.exposure_id
     WHERE m.token_id = $1 AND m.shown_to IS NULL AND e.filter IS NULL)`,
  [tokenId],
];

/** In: who, why, when. */
export const insertExposure = (
  of: Pick<ExposureRow, 'id' | 'actor_type' | 'actor_id' | 'actor_name' | 'reason' | 'comment' | 'filter' | 'tokens'>,
  at: Date,
): Statement => [
  `INSERT INTO exposures (id, actor_type, actor_id, actor_name, reason, comment, filter, created_at, touched_at, tokens)
   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now(), $9)`,
  [of.id, of.actor_type, of.actor_id, of.actor_name, of.reason, of.comment, of.filter, at, of.tokens],
];

/** A member to insert. */
export interface NewMember {
  token_id: string;
  shown_to: string | null;
  covered: boolean;
  invalidation_id: string | null;
}

/** In: members, revoked in this transaction or before. One without an invalidation has nothing to confirm. */
export const insertMembers = (exposureId: string, members: readonly NewMember[]): Statement => [
  `INSERT INTO exposure_members (exposure_id, token_id, shown_to, covered, invalidation_id, confirmed)
   SELECT $1, token_id, shown_to, covered, invalidation_id, invalidation_id IS NULL
   FROM jsonb_to_recordset($2::jsonb) AS m(token_id uuid, shown_to uuid, covered boolean, invalidation_id uuid)
   ON CONFLICT DO NOTHING`,
  [exposureId, JSON.stringify(members)],
];

/** In: members that a filter named, revoked in this transaction or before; what to search for them next. */
export const markMembersRevoked = (
  exposureId: string,
  members: readonly NewMember[],
  next: 'shown' | 'descendants',
): Statement => [
  `UPDATE exposure_members e SET sought = $3, invalidation_id = m.invalidation_id, confirmed = m.invalidation_id IS NULL
   FROM jsonb_to_recordset($2::jsonb) AS m(token_id uuid, invalidation_id uuid)
   WHERE e.exposure_id = $1 AND e.token_id = m.token_id`,
  [exposureId, JSON.stringify(members), next],
];

/** In: exposure. Out: members with this work pending, in the order of insertion. */
export const selectPending = (exposureId: string, pending: 'itself' | 'shown' | 'descendants'): Statement => [
  `SELECT token_id, scanned_to FROM exposure_members WHERE exposure_id = $1 AND sought = $2 ORDER BY place LIMIT $3`,
  [exposureId, pending, STEP_ROWS_MAX],
];

/**
 * In: members, each with the last id scanned. Out: tokens shown to them after that id, ordered by member and id, at most
 * one step's. All members are revoked and committed, so none is shown another secret.
 */
export const selectShown = (todo: readonly { token_id: string; scanned_to: string | null }[]): Statement => [
  `SELECT c.id, todo.maker FROM jsonb_to_recordset($1::jsonb) AS todo(place integer, maker uuid, scanned_to uuid)
   CROSS JOIN LATERAL (
     SELECT t.id FROM tokens t
     WHERE t.created_by_type = 'token' AND t.created_by_id = todo.maker
       AND t.id > COALESCE(todo.scanned_to, '00000000-0000-0000-0000-000000000000')
     ORDER BY t.id LIMIT $2
   ) c ORDER BY todo.place, c.id LIMIT $2`,
  [JSON.stringify(todo.map((m, place) => ({ place, maker: m.token_id, scanned_to: m.scanned_to }))), STEP_ROWS_MAX],
];

/** In: tokens, locked. Out: their state. */
export interface TokenStateRow {
  id: string;
  name: string;
  projectId: string | null;
  ancestors: string[];
  rotated_from: string | null;
  revoked: boolean;
  /** It was revoked earlier, and the revocation was confirmed. */
  confirmed: boolean;
}
export const selectTokenStates = (ids: readonly string[]): Statement => [
  `SELECT id, name, project_id AS "projectId", ancestors, rotated_from, revoked_at IS NOT NULL AS revoked,
     revoked_at IS NOT NULL AND receipt IS NOT NULL AS confirmed
   FROM tokens WHERE id = ANY ($1) ORDER BY id`,
  [ids],
];

/**
 * In: tokens, locked. Out: those that can still be accepted: neither they nor an ancestor is revoked or expired. A
 * disabled one can be enabled again.
 */
export const selectLive = (ids: readonly string[]): Statement => [
  `SELECT id, name, project_id AS "projectId", ancestors, rotated_from, false AS revoked, false AS confirmed FROM tokens t
   WHERE id = ANY ($1) AND NOT EXISTS (
     SELECT FROM tokens a WHERE (a.id = t.id OR a.id = ANY (t.ancestors)) AND (a.revoked_at IS NOT NULL OR a.ends_at <= now()
       OR a.generation < (SELECT current FROM token_generation)))
   ORDER BY id`,
  [ids],
];

/**
 * In: tokens that are revoked or expired. Out: those whose exposure is not known yet: not revoked as exposed, and not
 * reported within a day.
 */
export const selectUnreported = (ids: readonly string[]): Statement => [
  `SELECT id, name, project_id AS "projectId", rotated_to AS "rotatedTo" FROM tokens t
   WHERE id = ANY ($1) AND revocation_reason IS DISTINCT FROM 'exposed' AND NOT EXISTS (
     SELECT FROM audit_events e WHERE e.token_id = t.id AND e.action = 'token.reported' AND e.at > now() - interval '1 day')
   ORDER BY id`,
  [ids],
];

/** In: an owner, locked. Out: all their tokens that are not revoked, locked. */
export const selectLiveOf = (ownerId: string): Statement => [
  `SELECT id, name, project_id AS "projectId", ancestors, rotated_from, false AS revoked, false AS confirmed FROM tokens
   WHERE owner_id = $1 AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE`,
  [ownerId],
];

/** In: exposure, owner. Makes members of their tokens revoked before: tokens shown to those can still be live. */
export const insertRevokedOf = (exposureId: string, ownerId: string): Statement => [
  `INSERT INTO exposure_members (exposure_id, token_id, covered, invalidation_id, confirmed)
   SELECT $1, id, false, CASE WHEN receipt IS NULL THEN invalidation_id END, receipt IS NOT NULL FROM tokens
   WHERE owner_id = $2 AND revoked_at IS NOT NULL
   ON CONFLICT DO NOTHING`,
  [exposureId, ownerId],
];

/** In: exposure, tokens. Out: those that are members. */
export const selectMembersAmong = (exposureId: string, ids: readonly string[]): Statement => [
  'SELECT token_id FROM exposure_members WHERE exposure_id = $1 AND token_id = ANY ($2)',
  [exposureId, ids],
];

/**
 * In: members to which every token shown has been found. Descendants of a covered member are found through its cover.
 */
export const markShownFound = (exposureId: string, ids: readonly string[]): Statement => [
  `UPDATE exposure_members SET sought = CASE WHEN covered THEN 'nothing' ELSE 'descendants' END
   WHERE exposure_id = $1 AND token_id = ANY ($2)`,
  [exposureId, ids],
];

/** In: member, the last token found that was shown to it. */
export const markScanned = (exposureId: string, id: string, scannedTo: string): Statement => [
  'UPDATE exposure_members SET scanned_to = $3 WHERE exposure_id = $1 AND token_id = $2',
  [exposureId, id, scannedTo],
];

/** In: members whose descendants are all revoked. */
export const markDescendantsRevoked = (exposureId: string, ids: readonly string[]): Statement => [
  `UPDATE exposure_members SET sought = 'nothing' WHERE exposure_id = $1 AND token_id = ANY ($2)`,
  [exposureId, ids],
];

/**
 * In: members. Out: descendants that are not revoked, locked, at most one step's. `ancestors <> '{}'` is the condition of
 * the index; without MATERIALIZED the limit makes PostgreSQL scan all tokens by id instead.
 */
export const selectDescendants = (ids: readonly string[]): Statement => [
  `WITH found AS MATERIALIZED (
     SELECT id FROM tokens WHERE revoked_at IS NULL AND ancestors && $1 AND ancestors <> '{}')
   SELECT id, name, project_id AS "projectId", ancestors, rotated_from, false AS revoked, false AS confirmed FROM tokens
   WHERE id IN (SELECT id FROM found ORDER BY id LIMIT $2) AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE`,
  [ids, STEP_ROWS_MAX],
];

/** What a step adds to the counts. */
export type Counts = Pick<ExposureRow, 'tokens' | 'successors' | 'descendants' | 'shown'>;

/** In: counts of a step; whether all tokens are found and revoked. */
export const recordStep = (id: string, counts: Counts, done: boolean): Statement => [
  `UPDATE exposures SET touched_at = now(), tokens = tokens + $2, successors = successors + $3,
     descendants = descendants + $4, shown = shown + $5, ended_at = CASE WHEN $6 THEN COALESCE(ended_at, now()) END
   WHERE id = $1`,
  [id, counts.tokens, counts.successors, counts.descendants, counts.shown, done],
];

/**
 * In: exposure. Out: revoked members that are not confirmed, each with its invalidation; null columns where that has been
 * pruned.
 */
export const selectUnconfirmed = (exposureId: string): Statement => [
  `SELECT m.token_id, i.id, i.kind, i.subject, i.cut, i.xid::text AS xid FROM exposure_members m
   LEFT JOIN invalidations i ON i.id = m.invalidation_id WHERE m.exposure_id = $1 AND NOT m.confirmed
     AND m.sought <> 'itself' LIMIT $2`,
  [exposureId, STEP_ROWS_MAX],
];

/** In: new invalidations that replace lost ones, each with its member. */
export const moveInvalidations = (exposureId: string, moved: readonly { id: string; subject: string }[]): Statement => [
  `WITH moved AS (SELECT id, subject FROM jsonb_to_recordset($2::jsonb) AS m(id uuid, subject uuid)), known AS (
     UPDATE exposure_members e SET invalidation_id = moved.id FROM moved
     WHERE e.exposure_id = $1 AND e.token_id = moved.subject)
   UPDATE tokens t SET invalidation_id = moved.id FROM moved WHERE t.id = moved.subject AND t.receipt IS NULL`,
  [exposureId, JSON.stringify(moved)],
];

/** In: exposure, confirmed invalidations, their receipt. A token keeps the first of several receipts. */
export const storeTokenReceipts = (exposureId: string, ids: readonly string[], receipt: Receipt): Statement => [
  `WITH kept AS (
     UPDATE tokens t SET receipt = $3::jsonb FROM exposure_members m
     WHERE m.exposure_id = $1 AND m.invalidation_id = ANY ($2) AND NOT m.confirmed AND t.id = m.token_id
       AND t.invalidation_id = m.invalidation_id AND t.receipt IS NULL
     RETURNING t.id)
   INSERT INTO receipts (id, token_ids, body) SELECT $4, array_agg(id), $3::jsonb FROM kept HAVING count(*) > 0`,
  [exposureId, ids, JSON.stringify(receipt), receipt.id],
];

/** In: exposure, confirmed invalidations. */
export const markConfirmed = (exposureId: string, invalidationIds: readonly string[]): Statement => [
  `UPDATE exposure_members SET confirmed = true
   WHERE exposure_id = $1 AND NOT confirmed AND invalidation_id = ANY ($2)`,
  [exposureId, invalidationIds],
];

/** In: exposure, its receipt so far. */
export const storeReceipt = (id: string, receipt: Receipt): Statement => [
  'UPDATE exposures SET touched_at = now(), receipt = $2 WHERE id = $1 AND confirmed_at IS NULL',
  [id, JSON.stringify(receipt)],
];

/**
 * In: exposure. Finishes it when every member is revoked and confirmed. Its receipt is visible to its creator and to
 * callers who may see one of its tokens.
 */
export const finish = (id: string): Statement => [
  `WITH finished AS (
     UPDATE exposures SET confirmed_at = now() WHERE id = $1 AND confirmed_at IS NULL AND ended_at IS NOT NULL
       AND NOT EXISTS (SELECT FROM exposure_members WHERE exposure_id = $1 AND NOT confirmed)
     RETURNING actor_type, actor_id, receipt)
   INSERT INTO receipts (id, token_ids, user_id, body)
   SELECT (receipt ->> 'id')::uuid,
     ARRAY(SELECT token_id FROM exposure_members WHERE exposure_id = $1 ORDER BY place LIMIT ${STEP_ROWS_MAX}),
     CASE actor_type WHEN 'user' THEN actor_id END, receipt
   FROM finished WHERE receipt ->> 'id' IS NOT NULL
   ON CONFLICT DO NOTHING`,
  [id],
];

/**
 * In: seconds without a step, limit. Out: abandoned exposures, marked as active from now: of several concurrent callers
 * one claims each.
 */
export const CLAIM_ABANDONED = `UPDATE exposures SET touched_at = now() WHERE id IN (
    SELECT id FROM exposures WHERE confirmed_at IS NULL AND touched_at < now() - make_interval(secs => $1)
    ORDER BY touched_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
  RETURNING id`;
