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
  chosenEnd,
  mayUseScopeOn,
  mustBeWithin,
  mustGrant,
  mustMeetPolicy,
  type Owned,
} from './token.rules.js';

/** What tokens are issued on, as it stands under the locks of the change. */
export interface IssueContext {
  now: Actor;
  generation: number;
  policy: Policy;
  projectId: string | null;
  /** Whom they are to act for; undefined: nobody of that id. */
  owner: OwnerRow | undefined;
  /** Of the token that issues; undefined where a person does. */
  family: FamilyRow | undefined;
}

/** By name; of a project whether it is closed. */
interface OwnerRow {
  name: string;
  closed: boolean;
}

/** Locks what tokens of this project, or without one of the caller's own, are issued on. @throws as `LocksService.lock` */
export async function lockForIssue(
  locks: LocksService,
  change: Change,
  actor: Actor,
  projectId: string | null,
): Promise<IssueContext> {
  // A person's own name comes with their locks.
  const isOwn = actor.type === 'user' && projectId === null;
  const lock = { rest: { projects: projectId === null ? [] : [projectId] } };
  const owner = isOwn ? [] : [selectOwner(projectId, actor.userId)];
  const family = actor.type === 'token' ? [selectFamily(actor.tokenId)] : [];
  const { now, generation, read } = await locks.lock(change, actor, lock, SELECT_POLICY, ...owner, ...family);
  const [[policy], [named] = [], [grown] = []] = read as [[Policy], OwnerRow[]?, FamilyRow[]?];
  return {
    now,
    generation,
    policy,
    projectId,
    owner: isOwn ? { name: now.name, closed: false } : named,
    family: grown,
  };
}

/** In: project, or where there is none the person. Out: an `OwnerRow`. */
const selectOwner = (projectId: string | null, userId: string | null): Statement =>
  projectId === null
    ? ['SELECT name, false AS closed FROM users WHERE id = $1', [userId]]
    : ['SELECT name, closed_at IS NOT NULL AS closed FROM projects WHERE id = $1', [projectId]];

/**
 * Claims an Idempotency-Key, where one was sent, for the token about to be made.
 * @returns the token that an earlier request with this key made; null when this request is the first
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
  // Waits here while another request with the same key is under way, and then finds its row.
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
      'This Idempotency-Key came before with another body. Use a new key for a new token.',
    );
  return earlier!.token_id;
}

/** Columns that tell where a token comes from. */
type Lineage = 'ancestors' | 'familyId' | 'generation' | 'rotatedFrom';

/**
 * The token that is asked for, with what it may be here.
 * @param asked what is as it was asked for
 * @throws ApiError when the caller may not issue there or not grant this, the policy does not allow it, or it exceeds its
 *   parent's bounds
 */
export function newToken(
  context: IssueContext,
  known: ScopesService,
  body: IssueTokenBody,
  asked: Omit<NewToken, keyof Owned | 'createdByType' | 'createdById' | 'createdAt' | 'expiresAt' | Lineage>,
): NewToken {
  const { now, generation, projectId } = context;
  const familyId = mustGrowSlowly(context.family);
  const owner = ownerOf(context);
  mustGrant(now, known, asked.scopes, projectId);
  const createdAt = new Date();
  const expiresAt = chosenEnd(body, createdAt) ?? null;
  const bounds = { ...asked, rateLimit: body.rateLimit ?? null, end: expiresAt };
  mustMeetPolicy(context.policy, { createdAt, ...bounds });
  const ancestors = ancestorsOf(now, bounds);
  return {
    ...asked,
    ...owner,
    ...{ ancestors, createdAt, expiresAt, familyId, generation },
    createdByType: now.type,
    createdById: actorId(now),
    rotatedFrom: null,
  };
}

/** Whom a new token acts for: the caller, or the project. @throws ApiError when the caller may not issue there */
export function ownerOf({ now, projectId, owner }: IssueContext): Owned {
  if (projectId === null) {
    if (now.userId === null)
      throw forbidden('A project token makes project tokens only (kind "prj", with its own projectId).');
    if (!now.rights.holds('tokens:write')) throw lacksScope(['tokens:write']);
    return { ownerUserId: now.userId, projectId: null };
  }
  if (!owner || !now.rights.belongsTo(projectId)) throw notFound('project');
  if (owner.closed) throw conflict('The project is closed, so nothing is issued in it any more.');
  if (!mayUseScopeOn(now, 'tokens:write', { ownerUserId: null, projectId })) {
    if (now.type === 'token') throw lacksScope(['tokens:write']);
    throw forbidden('Your role in this project does not let you issue tokens. Ask an editor or owner of it.');
  }
  return { ownerUserId: null, projectId };
}

/** Tokens made with tokens made with tokens: no deeper than this. */
const GENERATIONS_MAX = 8;

/**
 * The ancestors of a token made with another, nearest first; none where a person makes it.
 * @throws ApiError when it exceeds its parent's bounds, or comes too many generations after the first
 */
export function ancestorsOf(maker: Actor, child: Bounds): string[] {
  if (maker.type === 'user') return [];
  mustBeWithin(maker, child);
  const ancestors = [maker.tokenId, ...maker.facts.ancestors];
  if (ancestors.length > GENERATIONS_MAX)
    throw conflict(`Tokens are made with tokens for at most ${GENERATIONS_MAX} generations.`);
  return ancestors;
}

const WINDOW_MS = 3_600_000;
/**
 * Most secrets that a token, and what it was shown, and so on, is shown in an hour. Automation that makes a token for
 * each of its runs makes one every two seconds with it; what a thief makes of a token in a day is ended within minutes.
 */
export const FAMILY_HOUR_MAX = 2_000;
/** The same where some were imported: one import may be as large as this. */
export const FAMILY_IMPORTED_HOUR_MAX = 10_000;

/** What a family has grown by lately. */
export interface FamilyRow {
  id: string;
  recent: number;
  since: Date | null;
}

/** In: the token that is about to be shown secrets. Out: its family, and what that was shown within the hour. */
export const selectFamily = (tokenId: string): Statement => [
  `SELECT f.id, r.recent, r.since FROM (SELECT COALESCE(family_id, id) AS id FROM tokens WHERE id = $1) f,
     LATERAL (SELECT count(*)::int AS recent, min(created_at) AS since FROM (
       SELECT created_at FROM tokens WHERE family_id = f.id AND created_at > $2 ORDER BY created_at DESC LIMIT $3) n) r`,
  [tokenId, new Date(Date.now() - WINDOW_MS), FAMILY_IMPORTED_HOUR_MAX],
];

/**
 * The family of a new token; null where a person makes it.
 * @param max of the whole family in an hour, the new ones counted
 * @throws ApiError `rate_limited` when it grows too fast. Of several at the same moment each counts what was there before.
 */
export function mustGrowSlowly(family: FamilyRow | undefined, added = 1, max = FAMILY_HOUR_MAX): string | null {
  if (!family) return null;
  if (family.recent + added <= max) return family.id;
  const waitMs = (family.since?.getTime() ?? 0) + WINDOW_MS - Date.now();
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  throw new ApiError(
    'rate_limited',
    `A token, with all that it was shown by issuing and rotating, is shown at most ${max} secrets in an hour. ` +
      `Wait ${seconds} s, or let a person who is signed in do it.`,
    { headers: { 'retry-after': String(seconds) } },
  );
}
