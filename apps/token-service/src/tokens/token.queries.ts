import type { RevocationReason, Token } from '@latchkey/contracts';
import { type Actor, actorId, type SystemActor } from '../authorization/index.js';
import { columnsAs, type Statement, select } from '../database/index.js';
import { lackingOf } from '../verification/index.js';
import { STATUS } from './listing.js';
import { TokenEntity } from './token.entity.js';

/** Rows that are not marked yet were revoked when all tokens were. */
const REVOKED_AT = `COALESCE(revoked_at, (SELECT e.at FROM revocations_of_all e WHERE e.generation = tokens.generation + 1))`;

/** In: token. Out: its `TokenEntity`, if it exists. */
export const selectToken = (id: string): Statement => select(TokenEntity, { id }, { revokedAt: REVOKED_AT });

/** In: tokens. Out: the `TokenEntity` of each that exists, in the order of their ids. */
export const selectTokens = (ids: readonly string[]): Statement => [
  `SELECT ${columnsAs(TokenEntity, 'tokens', { revokedAt: REVOKED_AT })} FROM tokens WHERE id = ANY ($1) ORDER BY id`,
  [ids],
];

/** A token as the API shows it. */
export interface TokenViewRow extends Omit<TokenEntity, 'hash' | 'pepperId'> {
  endsAt: Date | null;
  status: Token['status'];
  ownerName: string;
  ownerDisabled: boolean;
  createdByName: string | null;
  revokedByName: string | null;
  lastUsedAt: Date | null;
  lastUsedIp: string | null;
  usageCount: string | null;
}

/** The column of the revocation of all tokens, where the row itself is not marked as revoked. */
const ofAll = (column: string, own: string): string =>
  `CASE WHEN e.generation IS NULL THEN t.${own} ELSE e.${column} END`;
const COLUMNS = columnsAs(TokenEntity, 't', {
  revokedAt: ofAll('at', 'revoked_at'),
  revokedByType: ofAll('actor_type', 'revoked_by_type'),
  revokedById: ofAll('actor_id', 'revoked_by_id'),
  revocationReason: ofAll('reason', 'revocation_reason'),
  receipt: ofAll('receipt', 'receipt'),
});

/** Names and usage are joined by primary keys only. */
const tokenViews = (where: string) => `
SELECT t.*, COALESCE(ou.name, op.name) AS "ownerName",
  (ou.disabled_at IS NOT NULL OR op.closed_at IS NOT NULL) AS "ownerDisabled", COALESCE(cu.name, ct.name) AS "createdByName",
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

/** In: `$1` token. Out: its `TokenViewRow`, if it exists. */
export const SELECT_TOKEN_VIEW = tokenViews('t.id = $1');

/** In: `$1` tokens. Out: a `TokenViewRow` of each that exists, in no order. */
export const SELECT_TOKEN_VIEWS = tokenViews('t.id = ANY ($1)');

/**
 * In: hashes of secrets, under every pepper of this process; the peppers' fingerprints. Out: whether one of the hashes is
 * `known`, and the peppers in use that this process is `lacking`, or null.
 */
export const selectKnown = (hashes: readonly Buffer[], fingerprints: readonly Buffer[]): Statement => [
  `SELECT EXISTS (SELECT 1 FROM tokens WHERE hash = ANY ($1)) AS known, ${lackingOf('$2::bytea[]')} AS lacking`,
  [hashes, fingerprints],
];

/** The earliest expiry of ancestors; whether one is revoked, expired or disabled. */
export interface AncestorsRow {
  expiresAt: Date | null;
  inactive: boolean;
}

/** In: ancestors of a token, at least one. Out: one `AncestorsRow`. */
export const selectAncestors = (ids: readonly string[]): Statement => [
  `SELECT min(ends_at) AS "expiresAt", bool_or(revoked_at IS NOT NULL OR disabled_at IS NOT NULL OR COALESCE(ends_at <= now(), false)) AS inactive
   FROM tokens WHERE id = ANY ($1)`,
  [ids],
];

/** A token to revoke, unless it is revoked already. */
export interface TargetRow {
  id: string;
  name: string;
  projectId: string | null;
  ancestors: string[];
  revoked: boolean;
}
const SELECT_TARGET = `SELECT id, name, project_id AS "projectId", ancestors, revoked_at IS NOT NULL AS revoked FROM tokens WHERE`;

/**
 * In: `$1` tokens. Out: their descendants that are not revoked, locked. `ancestors <> '{}'` is the condition of the
 * index: without it PostgreSQL reads every token.
 */
export const SELECT_DESCENDANTS = `${SELECT_TARGET} revoked_at IS NULL AND ancestors && $1 AND ancestors <> '{}' ORDER BY id FOR NO KEY UPDATE`;

/**
 * In: tokens that the transaction has locked. Out: a `TargetRow` of each, and of each descendant that is not revoked.
 * Descendants are read after the locks, in a new snapshot, so that none issued meanwhile is missed.
 */
export const selectTargets = (ids: readonly string[]): Statement[] => [
  [`${SELECT_TARGET} id = ANY ($1)`, [ids]],
  [SELECT_DESCENDANTS, [ids]],
];

/** In: a person, locked. Out: their tokens that are not revoked, or whose revocation was never confirmed, locked. */
export const selectOwn = (userId: string): Statement => [
  `SELECT id, revoked_at IS NOT NULL AS revoked FROM tokens
   WHERE owner_id = $1 AND (revoked_at IS NULL OR receipt IS NULL) ORDER BY id FOR NO KEY UPDATE`,
  [userId],
];

/** In: tokens, locked, each with its invalidation; who revokes them, and why. */
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

/** In: revoked tokens, the invalidations that replace theirs. */
export const moveInvalidations = (
  ids: readonly string[],
  invalidationIds: readonly (string | undefined)[],
): Statement => [
  `UPDATE tokens t SET invalidation_id = e.invalidation_id, receipt = NULL
   FROM unnest($1::uuid[], $2::uuid[]) AS e(id, invalidation_id) WHERE t.id = e.id`,
  [ids, invalidationIds],
];

/**
 * In: a token just disabled or enabled. Stores, for lists, with each descendant whether an ancestor of it is disabled.
 */
export const markDescendants = (id: string): Statement => [
  `WITH below AS (
     SELECT id FROM tokens WHERE ancestors && $1 AND ancestors <> '{}' AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE)
   UPDATE tokens t SET disabled_above = EXISTS (
     SELECT 1 FROM tokens a WHERE a.id = ANY (t.ancestors) AND a.disabled_at IS NOT NULL)
   FROM below WHERE t.id = below.id`,
  [[id]],
];

/** In: `$1` at most. Out: rotated tokens whose overlap has ended, locked; without those that another transaction has locked. */
export const SELECT_OVERLAP_DUE = `SELECT id FROM tokens
  WHERE overlap_ends_at <= now() AND revoked_at IS NULL AND overlap_ends_at IS NOT NULL
  ORDER BY overlap_ends_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED`;
