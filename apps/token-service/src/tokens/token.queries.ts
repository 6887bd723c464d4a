import type { RevocationReason, Token } from '@latchkey/contracts';
import { type Actor, actorId, type SystemActor } from '../authorization/index.js';
import { columnsAs, type Statement, select } from '../database/index.js';
import { STATUS } from './listing.js';
import { TokenEntity } from './token.entity.js';

/** What is not marked yet has ended when everything did. */
const REVOKED_AT = `COALESCE(revoked_at, (SELECT e.at FROM revocations_of_all e WHERE e.generation = tokens.generation + 1))`;

/** In: token. Out: it, if there is: a `TokenEntity`. */
export const selectToken = (id: string): Statement => select(TokenEntity, { id }, { revokedAt: REVOKED_AT });

/** A token with all that its record tells. */
export interface RecordRow extends Omit<TokenEntity, 'hash'> {
  endsAt: Date | null;
  status: Token['status'];
  ownerName: string;
  createdByName: string | null;
  revokedByName: string | null;
  lastUsedAt: Date | null;
  lastUsedIp: string | null;
  usageCount: string | null;
}

/** Of what has ended together with everything, where its row does not say that it was revoked. */
const ofAll = (column: string, own: string): string =>
  `CASE WHEN e.generation IS NULL THEN t.${own} ELSE e.${column} END`;
const COLUMNS = columnsAs(TokenEntity, 't', {
  revokedAt: ofAll('at', 'revoked_at'),
  revokedByType: ofAll('actor_type', 'revoked_by_type'),
  revokedById: ofAll('actor_id', 'revoked_by_id'),
  revocationReason: ofAll('reason', 'revocation_reason'),
  receipt: ofAll('receipt', 'receipt'),
});

/** The names and the usage are added to the rows by primary keys alone. */
const records = (where: string) => `
SELECT t.*, COALESCE(ou.name, op.name) AS "ownerName", COALESCE(cu.name, ct.name) AS "createdByName",
  COALESCE(ru.name, rt.name) AS "revokedByName", tu.last_used_at AS "lastUsedAt", tu.last_used_ip AS "lastUsedIp",
  tu.usage_count AS "usageCount"
FROM (
  SELECT ${COLUMNS}, t.ends_at AS "endsAt", CASE WHEN e.generation IS NULL THEN ${STATUS} ELSE 'revoked' END AS status
  FROM tokens t LEFT JOIN revocations_of_all e ON e.generation = t.generation + 1 AND t.revoked_at IS NULL WHERE ${where}
) t
LEFT JOIN users ou ON ou.id = t."ownerUserId"
LEFT JOIN projects op ON op.id = t."projectId"
LEFT JOIN users cu ON cu.id = t."createdById"
LEFT JOIN tokens ct ON ct.id = t."createdById"
LEFT JOIN users ru ON ru.id = t."revokedById"
LEFT JOIN tokens rt ON rt.id = t."revokedById"
LEFT JOIN token_usage tu ON tu.token_id = t.id`;

/** In: `$1` token. Out: its `RecordRow`, if it is there. */
export const SELECT_RECORD = records('t.id = $1');

/** In: `$1` tokens. Out: a `RecordRow` of each that is there, in no order. */
export const SELECT_RECORDS = records('t.id = ANY ($1)');

/** In: what could be stored of secrets. Out: a row where one of them is. */
export const selectKnown = (hashes: readonly Buffer[]): Statement => [
  'SELECT 1 FROM tokens WHERE hash = ANY ($1) LIMIT 1',
  [hashes],
];

/** When ancestors end, the first of them; whether one has ended or is disabled. */
export interface AncestorsRow {
  latest: Date | null;
  dead: boolean;
}

/** In: ancestors of a token, not none. Out: one `AncestorsRow`. */
export const selectAncestors = (ids: readonly string[]): Statement => [
  `SELECT min(ends_at) AS latest, bool_or(revoked_at IS NOT NULL OR disabled_at IS NOT NULL OR COALESCE(ends_at <= now(), false)) AS dead
   FROM tokens WHERE id = ANY ($1)`,
  [ids],
];

/** A token that is to be ended, unless it is already. */
export interface EndedRow {
  id: string;
  name: string;
  projectId: string | null;
  ancestors: string[];
  revoked: boolean;
}
const ENDING = `SELECT id, name, project_id AS "projectId", ancestors, revoked_at IS NOT NULL AS revoked FROM tokens WHERE`;

/**
 * In: `$1` tokens. Out: those made with them that are not revoked, locked. `ancestors <> '{}'` is the condition of the
 * index: without it PostgreSQL reads every token.
 */
export const SELECT_DESCENDANTS = `${ENDING} revoked_at IS NULL AND ancestors && $1 AND ancestors <> '{}' ORDER BY id FOR NO KEY UPDATE`;

/**
 * In: tokens, which the transaction has locked. Out: an `EndedRow` of each and of all made with them that are not revoked.
 * Those are read after the locks, in a snapshot of its own, so that none made meanwhile is missed.
 */
export const selectEnding = (ids: readonly string[]): Statement[] => [
  [`${ENDING} id = ANY ($1)`, [ids]],
  [SELECT_DESCENDANTS, [ids]],
];

/** In: a person, locked. Out: tokens of theirs that are not revoked, or never confirmed to be, locked. */
export const selectOwn = (userId: string): Statement => [
  `SELECT id, revoked_at IS NOT NULL AS revoked FROM tokens
   WHERE owner_id = $1 AND (revoked_at IS NULL OR receipt IS NULL) ORDER BY id FOR NO KEY UPDATE`,
  [userId],
];

/** In: tokens, locked, each with the invalidation that tells of it; who revokes them, and why. */
export const markRevoked = (
  ids: readonly string[],
  invalidationIds: readonly (string | undefined)[],
  actor: Actor | SystemActor,
  { reason, comment }: { reason: RevocationReason; comment?: string | undefined },
): Statement => [
  `UPDATE tokens t SET revoked_at = $3, revoked_by_type = $4, revoked_by_id = $5, revocation_reason = $6,
     revocation_comment = $7, invalidation_id = e.invalidation_id, receipt = NULL
   FROM unnest($1::uuid[], $2::uuid[]) AS e(id, invalidation_id) WHERE t.id = e.id`,
  [ids, invalidationIds, new Date(), actor.type, actorId(actor), reason, comment ?? null],
];

/** In: tokens, theirs. Tokens that are as they are to be are told of by other invalidations. */
export const moveInvalidations = (
  ids: readonly string[],
  invalidationIds: readonly (string | undefined)[],
): Statement => [
  `UPDATE tokens t SET invalidation_id = e.invalidation_id, receipt = NULL
   FROM unnest($1::uuid[], $2::uuid[]) AS e(id, invalidation_id) WHERE t.id = e.id`,
  [ids, invalidationIds],
];

/**
 * In: a token just disabled or enabled. Writes down, for lists, on what was made with it whether any above that is
 * disabled.
 */
export const markBelow = (id: string): Statement => [
  `WITH below AS (
     SELECT id FROM tokens WHERE ancestors && $1 AND ancestors <> '{}' AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE)
   UPDATE tokens t SET disabled_above = EXISTS (
     SELECT 1 FROM tokens a WHERE a.id = ANY (t.ancestors) AND a.disabled_at IS NOT NULL)
   FROM below WHERE t.id = below.id`,
  [[id]],
];

/** In: `$1` at most. Out: rotated tokens whose overlap has ended, locked, but for those that somebody else has. */
export const SELECT_OVERLAP_DUE = `SELECT id FROM tokens
  WHERE overlap_ends_at <= now() AND revoked_at IS NULL AND overlap_ends_at IS NOT NULL
  ORDER BY overlap_ends_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED`;
