import type { Receipt, RevocationReason, TokenFilter } from '@latchkey/contracts';
import type { Statement } from '../database/index.js';

/** Most tokens that one transaction ends. */
export const STEP_ROWS_MAX = 1_000;

/** A row of `exposures`. */
export interface ExposureRow {
  id: string;
  actor_type: 'user' | 'token' | 'system';
  actor_id: string | null;
  actor_name: string;
  reason: RevocationReason;
  comment: string | null;
  /** Null: its tokens were named one by one. */
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

/** In: exposure. Out: it, if there is. */
export const selectExposure = (id: string): Statement => [`SELECT ${EXPOSURE} FROM exposures WHERE id = $1`, [id]];

/** In: exposure. Out: it, locked: whoever ends a part of it, or notes that a part is confirmed, takes turns here. */
export const lockExposure = (id: string): Statement => [
  `SELECT ${EXPOSURE} FROM exposures WHERE id = $1 FOR NO KEY UPDATE`,
  [id],
];

/** In: token, locked. Out: the newest exposure in which it was named itself, not by a filter. */
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

/** A token about to become a member. */
export interface NewMember {
  token_id: string;
  shown_to: string | null;
  covered: boolean;
  invalidation_id: string | null;
}

/** In: members, revoked by the same transaction at the latest. One without an invalidation has nothing to confirm. */
export const insertMembers = (exposureId: string, members: readonly NewMember[]): Statement => [
  `INSERT INTO exposure_members (exposure_id, token_id, shown_to, covered, invalidation_id, confirmed)
   SELECT $1, token_id, shown_to, covered, invalidation_id, invalidation_id IS NULL
   FROM jsonb_to_recordset($2::jsonb) AS m(token_id uuid, shown_to uuid, covered boolean, invalidation_id uuid)
   ON CONFLICT DO NOTHING`,
  [exposureId, JSON.stringify(members)],
];

/** In: members that a filter named, revoked by the same transaction at the latest; what is to be sought of them next. */
export const endMembers = (
  exposureId: string,
  members: readonly NewMember[],
  next: 'shown' | 'descendants',
): Statement => [
  `UPDATE exposure_members e SET sought = $3, invalidation_id = m.invalidation_id, confirmed = m.invalidation_id IS NULL
   FROM jsonb_to_recordset($2::jsonb) AS m(token_id uuid, invalidation_id uuid)
   WHERE e.exposure_id = $1 AND e.token_id = m.token_id`,
  [exposureId, JSON.stringify(members), next],
];

/** In: exposure. Out: members that are to be ended, or whose kin is to be looked for, those that came first first. */
export const selectSought = (exposureId: string, sought: 'itself' | 'shown' | 'descendants'): Statement => [
  `SELECT token_id, scanned_to FROM exposure_members WHERE exposure_id = $1 AND sought = $2 ORDER BY place LIMIT $3`,
  [exposureId, sought, STEP_ROWS_MAX],
];

/**
 * In: members with how far each was scanned, in their order. Out: tokens shown to them beyond that, in the order of the
 * members and of ids, at most a step's. All members are revoked and committed, so none is shown anything any more.
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

/** In: tokens, locked. Out: how they stand. */
export interface StandingRow {
  id: string;
  name: string;
  projectId: string | null;
  ancestors: string[];
  rotated_from: string | null;
  revoked: boolean;
  /** It was revoked earlier, and no verifier accepts it. */
  confirmed: boolean;
}
export const selectStanding = (ids: readonly string[]): Statement => [
  `SELECT id, name, project_id AS "projectId", ancestors, rotated_from, revoked_at IS NOT NULL AS revoked,
     revoked_at IS NOT NULL AND receipt IS NOT NULL AS confirmed
   FROM tokens WHERE id = ANY ($1) ORDER BY id`,
  [ids],
];

/**
 * In: tokens, locked. Out: those of them that are not over for good: neither they nor an ancestor is revoked or past its
 * end. One that is disabled may be enabled again.
 */
export const selectLiving = (ids: readonly string[]): Statement => [
  `SELECT id, name, project_id AS "projectId", ancestors, rotated_from, false AS revoked, false AS confirmed FROM tokens t
   WHERE id = ANY ($1) AND NOT EXISTS (
     SELECT FROM tokens a WHERE (a.id = t.id OR a.id = ANY (t.ancestors)) AND (a.revoked_at IS NOT NULL OR a.ends_at <= now()
       OR a.generation < (SELECT current FROM token_generation)))
   ORDER BY id`,
  [ids],
];

/**
 * In: tokens that are over. Out: those of which it is news that they were found in the open: not ended as exposed, and
 * not told of for a day.
 */
export const selectUntold = (ids: readonly string[]): Statement => [
  `SELECT id, name, project_id AS "projectId", rotated_to AS "rotatedTo" FROM tokens t
   WHERE id = ANY ($1) AND revocation_reason IS DISTINCT FROM 'exposed' AND NOT EXISTS (
     SELECT FROM audit_events e WHERE e.token_id = t.id AND e.action = 'token.reported' AND e.at > now() - interval '1 day')
   ORDER BY id`,
  [ids],
];

/** In: an owner, locked. Out: all tokens of theirs that are not revoked, locked. */
export const selectLivingOf = (ownerId: string): Statement => [
  `SELECT id, name, project_id AS "projectId", ancestors, rotated_from, false AS revoked, false AS confirmed FROM tokens
   WHERE owner_id = $1 AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE`,
  [ownerId],
];

/** In: exposure, an owner. All tokens of theirs that were revoked before are named too: what they were shown may live. */
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
 * In: members. All shown to them has been found. Descendants of one that is covered are descendants of what covers it.
 */
export const markShownFound = (exposureId: string, ids: readonly string[]): Statement => [
  `UPDATE exposure_members SET sought = CASE WHEN covered THEN 'nothing' ELSE 'descendants' END
   WHERE exposure_id = $1 AND token_id = ANY ($2)`,
  [exposureId, ids],
];

/** In: a member, the last token found that was shown to it. */
export const markScanned = (exposureId: string, id: string, scannedTo: string): Statement => [
  'UPDATE exposure_members SET scanned_to = $3 WHERE exposure_id = $1 AND token_id = $2',
  [exposureId, id, scannedTo],
];

/** In: members. All descendants of theirs are revoked. */
export const markDescendantsEnded = (exposureId: string, ids: readonly string[]): Statement => [
  `UPDATE exposure_members SET sought = 'nothing' WHERE exposure_id = $1 AND token_id = ANY ($2)`,
  [exposureId, ids],
];

/**
 * In: members. Out: descendants that are not revoked, locked, at most a step's. `ancestors <> '{}'` is the condition of
 * the index; without MATERIALIZED the limit tempts PostgreSQL to walk through all tokens by id instead.
 */
export const selectDescendants = (ids: readonly string[]): Statement => [
  `WITH found AS MATERIALIZED (
     SELECT id FROM tokens WHERE revoked_at IS NULL AND ancestors && $1 AND ancestors <> '{}')
   SELECT id, name, project_id AS "projectId", ancestors, rotated_from, false AS revoked, false AS confirmed FROM tokens
   WHERE id IN (SELECT id FROM found ORDER BY id LIMIT $2) AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE`,
  [ids, STEP_ROWS_MAX],
];

/** What a step has added to the counts. */
export type Counts = Pick<ExposureRow, 'tokens' | 'successors' | 'descendants' | 'shown'>;

/** In: what a step has ended; whether nothing is left to be sought. */
export const noteStep = (id: string, counts: Counts, done: boolean): Statement => [
  `UPDATE exposures SET touched_at = now(), tokens = tokens + $2, successors = successors + $3,
     descendants = descendants + $4, shown = shown + $5, ended_at = CASE WHEN $6 THEN COALESCE(ended_at, now()) END
   WHERE id = $1`,
  [id, counts.tokens, counts.successors, counts.descendants, counts.shown, done],
];

/**
 * In: exposure. Out: ended members of which it is not known that no verifier accepts them, each with its invalidation; of
 * one that has been pruned, nothing of it.
 */
export const selectUnconfirmed = (exposureId: string): Statement => [
  `SELECT m.token_id, i.id, i.kind, i.subject, i.cut, i.xid::text AS xid FROM exposure_members m
   LEFT JOIN invalidations i ON i.id = m.invalidation_id WHERE m.exposure_id = $1 AND NOT m.confirmed
     AND m.sought <> 'itself' LIMIT $2`,
  [exposureId, STEP_ROWS_MAX],
];

/** In: new invalidations in the place of forgotten ones, with the members that they are of. */
export const moveInvalidations = (exposureId: string, moved: readonly { id: string; subject: string }[]): Statement => [
  `WITH moved AS (SELECT id, subject FROM jsonb_to_recordset($2::jsonb) AS m(id uuid, subject uuid)), known AS (
     UPDATE exposure_members e SET invalidation_id = moved.id FROM moved
     WHERE e.exposure_id = $1 AND e.token_id = moved.subject)
   UPDATE tokens t SET invalidation_id = moved.id FROM moved WHERE t.id = moved.subject AND t.receipt IS NULL`,
  [exposureId, JSON.stringify(moved)],
];

/** In: exposure, invalidations that are confirmed, how. Of several receipts of one change the first stays with a token. */
export const keepTokenReceipts = (exposureId: string, ids: readonly string[], receipt: Receipt): Statement => [
  `WITH kept AS (
     UPDATE tokens t SET receipt = $3::jsonb FROM exposure_members m
     WHERE m.exposure_id = $1 AND m.invalidation_id = ANY ($2) AND NOT m.confirmed AND t.id = m.token_id
       AND t.invalidation_id = m.invalidation_id AND t.receipt IS NULL
     RETURNING t.id)
   INSERT INTO receipts (id, token_ids, body) SELECT $4, array_agg(id), $3::jsonb FROM kept HAVING count(*) > 0`,
  [exposureId, ids, JSON.stringify(receipt), receipt.id],
];

/** In: exposure, invalidations that are confirmed. */
export const markConfirmed = (exposureId: string, invalidationIds: readonly string[]): Statement => [
  `UPDATE exposure_members SET confirmed = true
   WHERE exposure_id = $1 AND NOT confirmed AND invalidation_id = ANY ($2)`,
  [exposureId, invalidationIds],
];

/** In: exposure, its receipt so far. */
export const keepReceipt = (id: string, receipt: Receipt): Statement => [
  'UPDATE exposures SET touched_at = now(), receipt = $2 WHERE id = $1 AND confirmed_at IS NULL',
  [id, JSON.stringify(receipt)],
];

/**
 * In: exposure. Finishes it when all has been ended and confirmed. Its receipt is for whoever asked for it, and for those
 * who may see one of its tokens.
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
 * In: seconds without a step, at most how many. Out: exposures that nobody goes on with, noted as gone on with from now
 * on: of several that look at once, one takes each.
 */
export const TAKE_ABANDONED = `UPDATE exposures SET touched_at = now() WHERE id IN (
    SELECT id FROM exposures WHERE confirmed_at IS NULL AND touched_at < now() - make_interval(secs => $1)
    ORDER BY touched_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
  RETURNING id`;
