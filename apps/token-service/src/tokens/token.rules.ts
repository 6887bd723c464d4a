import { LIMITS, type Policy, type RateLimit } from '@latchkey/contracts';
import { addressesWithin } from '@latchkey/verifier';
import type { Actor, ScopesService, TokenActor } from '../authorization/index.js';
import { badField, forbidden, lacksScope, notFound } from '../http/index.js';
import { expiryOf, rateOf, type TokenEntity } from './token.entity.js';

/** Who a token acts for. */
export type Owned = Pick<TokenEntity, 'ownerUserId' | 'projectId'>;

/** The limits on a token's use. */
export interface Bounds {
  scopes: readonly string[];
  allowedIps: readonly string[];
  rateLimit: RateLimit | null;
  /** null: never. */
  expiresAt: Date | null;
}

export const boundsOf = (token: TokenEntity): Bounds => ({
  scopes: token.scopes,
  allowedIps: token.allowedIps,
  rateLimit: rateOf(token),
  expiresAt: expiryOf(token),
});

const isOwn = (actor: Actor, token: Owned): boolean => token.ownerUserId !== null && token.ownerUserId === actor.userId;

/** Whether the caller may use the scope on this token: their own, their projects', or any for administrators. */
export function mayUseScopeOn(actor: Actor, scope: 'tokens:read' | 'tokens:write', token: Owned): boolean {
  if (token.projectId !== null) return actor.rights.holds(scope, token.projectId);
  if (isOwn(actor, token)) return actor.rights.holds(scope);
  return actor.rights.everywhere && actor.rights.holds(scope);
}

/** Permission to change a token includes permission to see it. */
export const maySee = (actor: Actor, token: Owned): boolean =>
  mayUseScopeOn(actor, 'tokens:read', token) || mayUseScopeOn(actor, 'tokens:write', token);

/** @throws ApiError `not_found`, the same as for a token that does not exist */
export function mustSee(actor: Actor, token: Owned | null): asserts token is Owned {
  if (!token || !maySee(actor, token)) throw notFound('token');
}

/** @throws ApiError `not_found`; `forbidden` or `insufficient_scope` when the caller may see the token */
export function mustChange<T extends Owned>(actor: Actor, token: T | null): asserts token is T {
  mustSee(actor, token);
  if (mayUseScopeOn(actor, 'tokens:write', token)) return;
  if (actor.type === 'token') throw lacksScope(['tokens:write']);
  throw forbidden('Your role in this project lets you see its tokens, not change them. Ask an editor or owner of it.');
}

/** Rotating shows the secret, so only its owner rotates a personal token: administrators revoke it instead. */
export function mustBeAllowedSecret(
  actor: Actor,
  known: ScopesService,
  token: Owned & { scopes: readonly string[] },
): void {
  if (token.projectId === null && !isOwn(actor, token))
    throw forbidden('Only its owner may rotate a personal token, because its new secret is shown. You may revoke it.');
  if (token.projectId === null) return;
  // The holder of a project token's secret can do everything that the token can.
  const { projectId } = token;
  const missing = token.scopes.filter((scope) => known.isKnown(scope) && !actor.rights.holds(scope, projectId));
  if (missing.length === 0) return;
  const detail = `Rotating shows the new secret, and you do not hold ${missing.join(', ')} in this project. You may revoke it.`;
  throw actor.type === 'token' ? lacksScope(missing, detail) : forbidden(detail);
}

/** @throws ApiError naming scopes that are unknown or that the caller may not grant */
export function mustGrant(
  actor: Actor,
  known: ScopesService,
  scopes: readonly string[],
  projectId: string | null,
): void {
  const unknown = scopes.filter((scope) => !known.isKnown(scope));
  if (unknown.length) throw badField('scopes', `unknown: ${unknown.join(', ')}. GET /v1/scopes lists those that exist`);
  const holds = (scope: string) =>
    projectId === null ? actor.rights.holdsSomewhere(scope) : actor.rights.holds(scope, projectId);
  const missing = scopes.filter((scope) => !holds(scope));
  if (missing.length === 0) return;
  if (actor.type === 'token')
    throw lacksScope(missing, `The token that makes this request does not hold ${missing.join(', ')}.`);
  throw forbidden(
    `You do not hold ${missing.join(', ')}${projectId ? ' in this project' : ''}, so you cannot grant it.`,
  );
}

/**
 * A token issues and changes tokens only within its own scopes, addresses, rate limit and expiry.
 * @throws ApiError naming the bound that is exceeded
 */
export function mustBeWithin(actor: TokenActor, bounds: Bounds): void {
  const { snapshot } = actor;
  const missing = bounds.scopes.filter(
    (scope) => !actor.rights.holdsSomewhere(scope) && !snapshot.scopes.includes(scope),
  );
  if (missing.length)
    throw lacksScope(missing, `The token that makes this request does not hold ${missing.join(', ')}.`);
  const exceeded = (what: string) =>
    forbidden(
      `A token issues and changes tokens only within its own bounds: ${what}. Choose narrower bounds, or sign in.`,
    );
  if (!addressesWithin(bounds.allowedIps, snapshot.allowedIps))
    throw exceeded(`allowedIps must lie within ${snapshot.allowedIps.join(', ')}`);
  if (snapshot.rateLimit && !rateWithin(bounds.rateLimit, snapshot.rateLimit))
    throw exceeded(`rateLimit must not exceed ${snapshot.rateLimit.limit} in ${snapshot.rateLimit.windowSeconds} s`);
  if (bounds.rateLimit && (snapshot.rates?.length ?? 0) >= LIMITS.rateBucketsMax)
    throw forbidden(
      `At most ${LIMITS.rateBucketsMax} rate limits apply to one use, and this token has that many. Sign in.`,
    );
  if (snapshot.expiresAtMs > 0 && (bounds.expiresAt === null || bounds.expiresAt.getTime() > snapshot.expiresAtMs))
    throw exceeded(`it must expire by ${new Date(snapshot.expiresAtMs).toISOString()}`);
}

/** Whether the inner limit allows no more than the outer one, in bursts and over time. */
const rateWithin = (inner: RateLimit | null, outer: RateLimit): boolean =>
  inner !== null &&
  inner.limit <= outer.limit &&
  inner.limit * outer.windowSeconds <= outer.limit * inner.windowSeconds;

const LIFETIME_MAX_MS = 100 * 366 * 86_400_000;

/** The requested expiry. @param path of the fields, for errors @returns undefined when none was given, null for never */
export function requestedExpiry(
  body: { expiresAt?: string | null | undefined; expiresInSeconds?: number | undefined },
  now: Date,
  path = '',
): Date | null | undefined {
  if (body.expiresInSeconds !== undefined) return new Date(now.getTime() + body.expiresInSeconds * 1000);
  if (body.expiresAt === undefined || body.expiresAt === null) return body.expiresAt;
  const expiresAt = new Date(body.expiresAt);
  const field = `${path}expiresAt`;
  if (expiresAt <= now) throw badField(field, 'must be in the future');
  if (expiresAt.getTime() - now.getTime() > LIFETIME_MAX_MS) throw badField(field, 'must be within 100 years');
  return expiresAt;
}

/** What the policy checks. */
interface PolicySubject {
  createdAt: Date;
  expiresAt: Date | null;
  allowedIps: readonly string[];
}

/**
 * @param tokens with addresses as canonical CIDRs; expiry null for never
 * @throws ApiError naming the field that violates the policy, and what the policy requires
 */
export function mustMeetPolicy(policy: Policy, ...tokens: readonly PolicySubject[]): void {
  for (const token of tokens) {
    mustExpireInTime(policy, token);
    mustMeetAddresses(policy, token.allowedIps);
  }
}

function mustExpireInTime(policy: Policy, { createdAt, expiresAt }: PolicySubject): void {
  const { lifetimeSecondsMax, expiryRequired } = policy;
  if (expiresAt === null) {
    if (!expiryRequired && lifetimeSecondsMax === null) return;
    throw badField('expiresAt', 'the policy requires an expiry: set expiresInSeconds');
  }
  if (lifetimeSecondsMax !== null && expiresAt.getTime() - createdAt.getTime() > lifetimeSecondsMax * 1_000)
    throw badField('expiresAt', `the policy allows a lifetime of at most ${lifetimeSecondsMax} seconds`);
}

/** Only the rule for addresses: for changes that leave the expiry as it is. */
export function mustMeetAddresses({ allowedIpPrefixes }: Policy, allowedIps: readonly string[]): void {
  if (allowedIpPrefixes.length === 0 || addressesWithin(allowedIps, allowedIpPrefixes)) return;
  throw badField('allowedIps', `the policy requires addresses within ${allowedIpPrefixes.join(', ')}`);
}

/** A successor's expiry: its predecessor's, or the latest that the policy allows if that is earlier. */
export function latestExpiry({ lifetimeSecondsMax }: Policy, createdAt: Date, expiresAt: Date | null): Date | null {
  if (lifetimeSecondsMax === null) return expiresAt;
  const latest = new Date(createdAt.getTime() + lifetimeSecondsMax * 1_000);
  return expiresAt === null || expiresAt > latest ? latest : expiresAt;
}
