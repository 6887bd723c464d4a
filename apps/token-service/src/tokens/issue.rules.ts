import { hash } from 'node:crypto';
import { canonicalJson, type IssueTokenBody, type Policy } from '@latchkey/contracts';
import { type Actor, actorId, type ScopesService } from '../authorization/index.js';
import type { Change, Statement } from '../database/index.js';
import { ApiError, conflict, forbidden, lacksScope, notFound } from '../http/index.js';
import type { LocksService } from '../verification/index.js';
import { SELECT_POLICY } from './policy.service.js';
import type { NewToken } from './token.entity.js';
import {
  type Bounds,
  mayUseScopeOn,
  mustBeWithin,
  mustGrant,
  mustMeetPolicy,
  type Owned,
  requestedExpiry,
} from './token.rules.js';

/** The state that issuing depends on, read under the locks of the change. */
export interface IssueContext {
  now: Actor;
  generation: number;
  policy: Policy;
  projectId: string | null;
  /** The person or project that the tokens act for; undefined: it does not exist. */
  owner: OwnerRow | undefined;
  /** Family of the token that issues; undefined when a person does. */
  family: FamilyRow | undefined;
}

interface OwnerRow {
  name: string;
  /** Of a project. */
  closed: boolean;
}

/** Locks and reads what issuing for this project depends on; null: for the caller. @throws as `LocksService.lock` */
export async function lockForIssue(
  locks: LocksService,
  change: Change,
  actor: Actor,
  projectId: string | null,
): Promise<IssueContext> {
  // Locking the caller returns their name.
  const isOwn = actor.type === 'user' && projectId === null;
  const lock = { rest: { projects: projectId === null ? [] : [projectId] } };
  const owner = isOwn ? [] : [selectOwner(projectId, actor.userId)];
  const family = actor.type === 'token' ? [selectFamily(actor.tokenId)] : [];
  const { now, generation, read } = await locks.lock(change, actor, lock, SELECT_POLICY, ...owner, ...family);
  const [[policy], [otherOwner] = [], [familyRow] = []] = read as [[Policy], OwnerRow[]?, FamilyRow[]?];
  return {
    now,
    generation,
    policy,
    projectId,
    owner: isOwn ? { name: now.name, closed: false } : otherOwner,
    family: familyRow,
  };
}

/** In: project, or null and the person. Out: an `OwnerRow`. */
const selectOwner = (projectId: string | null, userId: string | null): Statement =>
  projectId === null
    ? ['SELECT name, false AS closed FROM users WHERE id = $1', [userId]]
    : ['SELECT name, closed_at IS NOT NULL AS closed FROM projects WHERE id = $1', [projectId]];

/**
 * Claims an Idempotency-Key, if one was sent, for a token about to be issued.
 * @returns the token that an earlier request with this key issued; null when this request is the first
 * @throws ApiError `idempotency_conflict` when the earlier request had another body
 */
export async function claimKey(
  change: Change,
  actor: Actor,
  key: string | undefined,
  body: IssueTokenBody,
  tokenId: string,
): Promise<string | null> {
  if (key === undefined) return null;
  const claimant = `${actor.type}:${actorId(actor)}`;
  const requestHash = hash('sha256', canonicalJson(body), 'buffer');
  // Waits here for another request in progress with the same key, then finds its row.
  const claimed = await change.read([
    `INSERT INTO idempotency_keys (actor, key, request_hash, token_id, created_at) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (actor, key) DO NOTHING RETURNING token_id`,
    [claimant, key, requestHash, tokenId, new Date()],
  ]);
  if (claimed.length) return null;
  const [earlier] = await change.read<{ token_id: string; request_hash: Buffer }>([
    'SELECT token_id, request_hash FROM idempotency_keys WHERE actor = $1 AND key = $2',
    [claimant, key],
  ]);
  if (!earlier!.request_hash.equals(requestHash))
    throw new ApiError(
      'idempotency_conflict',
      'This Idempotency-Key was used before with another body. Use a new key for a new token.',
    );
  return earlier!.token_id;
}

/** Columns of a token's origin. */
type Origin = 'ancestors' | 'familyId' | 'generation' | 'rotatedFrom';

/**
 * The token to insert for a request.
 * @param requested columns that the request sets
 * @throws ApiError when the caller may not issue for this owner or grant these scopes, the policy does not allow it, or it
 *   exceeds its parent's bounds
 */
export function newToken(
  context: IssueContext,
  known: ScopesService,
  body: IssueTokenBody,
  requested: Omit<NewToken, keyof Owned | 'createdByType' | 'createdById' | 'createdAt' | 'expiresAt' | Origin>,
): NewToken {
  const { now, generation, projectId } = context;
  const familyId = mustBeWithinFamilyRate(context.family);
  const owner = ownerOf(context);
  mustGrant(now, known, requested.scopes, projectId);
  const createdAt = new Date();
  const expiresAt = requestedExpiry(body, createdAt) ?? null;
  const bounds = { ...requested, rateLimit: body.rateLimit ?? null, expiresAt };
  mustMeetPolicy(context.policy, { createdAt, ...bounds });
  const ancestors = ancestorsOf(now, bounds);
  return {
    ...requested,
    ...owner,
    ...{ ancestors, createdAt, expiresAt, familyId, generation },
    createdByType: now.type,
    createdById: actorId(now),
    rotatedFrom: null,
  };
}

/** The owner of a new token: the caller or the project. @throws ApiError when the caller may not issue for it */
export function ownerOf({ now, projectId, owner }: IssueContext): Owned {
  if (projectId === null) {
    if (now.userId === null)
      throw forbidden('A project token issues project tokens only (kind "prj", with its own projectId).');
    if (!now.rights.holds('tokens:write')) throw lacksScope(['tokens:write']);
    return { ownerUserId: now.userId, projectId: null };
  }
  if (!owner || !now.rights.belongsTo(projectId)) throw notFound('project');
  if (owner.closed) throw conflict('The project is closed, so no token can be issued in it.');
  if (!mayUseScopeOn(now, 'tokens:write', { ownerUserId: null, projectId })) {
    if (now.type === 'token') throw lacksScope(['tokens:write']);
    throw forbidden('Your role in this project does not let you issue tokens. Ask an editor or owner of it.');
  }
  return { ownerUserId: null, projectId };
}

/** Most ancestors of a token. */
const DERIVATION_DEPTH_MAX = 8;

/**
 * The ancestors of a new token, nearest first; empty when a person issues it.
 * @throws ApiError when it exceeds its parent's bounds, or has too many ancestors
 */
export function ancestorsOf(creator: Actor, child: Bounds): string[] {
  if (creator.type === 'user') return [];
  mustBeWithin(creator, child);
  const ancestors = [creator.tokenId, ...creator.snapshot.ancestors];
  if (ancestors.length > DERIVATION_DEPTH_MAX)
    throw conflict(
      `A token has at most ${DERIVATION_DEPTH_MAX} ancestors, and the token that makes this request has that many.`,
    );
  return ancestors;
}

const WINDOW_MS = 3_600_000;
/**
 * Most secrets that a family of tokens is shown in an hour. It allows automation one token every two seconds, and lets all
 * tokens that a thief issues with a stolen token in a day be revoked within minutes.
 */
export const FAMILY_HOUR_MAX = 2_000;
/** The same for imports: one import can be this large. */
export const FAMILY_IMPORTED_HOUR_MAX = 10_000;

/** A family, and the secrets that it was shown within the hour. */
export interface FamilyRow {
  id: string;
  recent: number;
  since: Date | null;
}

/** In: the token to be shown secrets. Out: its `FamilyRow`. */
export const selectFamily = (tokenId: string): Statement => [
  `SELECT f.id, r.recent, r.since FROM (SELECT COALESCE(family_id, id) AS id FROM tokens WHERE id = $1) f,
     LATERAL (SELECT count(*)::int AS recent, min(created_at) AS since FROM (
       SELECT created_at FROM tokens WHERE family_id = f.id AND created_at > $2 ORDER BY created_at DESC LIMIT $3) n) r`,
  [tokenId, new Date(Date.now() - WINDOW_MS), FAMILY_IMPORTED_HOUR_MAX],
];

/**
 * The family of a new token; null when a person issues it.
 * @param max secrets shown to the whole family in an hour, including the new ones
 * @throws ApiError `rate_limited` beyond that. Concurrent requests do not count each other.
 */
export function mustBeWithinFamilyRate(family: FamilyRow | undefined, added = 1, max = FAMILY_HOUR_MAX): string | null {
  if (!family) return null;
  if (family.recent + added <= max) return family.id;
  const waitMs = (family.since?.getTime() ?? 0) + WINDOW_MS - Date.now();
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  throw new ApiError(
    'rate_limited',
    `A token, with all tokens that it issued or rotated, is shown at most ${max} secrets in an hour. ` +
      `Wait ${seconds} s, or let a person who is signed in do it.`,
    { headers: { 'retry-after': String(seconds) } },
  );
}
