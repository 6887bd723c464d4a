import { LIMITS, type Policy, type RateLimit } from '@latchkey/contracts';
import { addressesWithin } from '@latchkey/verifier';
import type { Actor, ScopesService, TokenActor } from '../authorization/index.js';
import { badField, forbidden, lacksScope, notFound } from '../http/index.js';
import { endOf, rateOf, type TokenEntity } from './token.entity.js';

/** Who a token acts for. */
export type Owned = Pick<TokenEntity, 'ownerUserId' | 'projectId'>;

/** What bounds the use of a token. */
export interface Bounds {
  scopes: readonly string[];
  allowedIps: readonly string[];
  rateLimit: RateLimit | null;
  /** null: never. */
  end: Date | null;
}

export const boundsOf = (token: TokenEntity): Bounds => ({
  scopes: token.scopes,
  allowedIps: token.allowedIps,
  rateLimit: rateOf(token),
  end: endOf(token),
});

const isOwn = (actor: Actor, token: Owned): boolean => token.ownerUserId !== null && token.ownerUserId === actor.userId;

/** Whether the caller may do to this token what the scope names: one's own, those of one's projects, any for administrators. */
export function mayUseScopeOn(actor: Actor, scope: 'tokens:read' | 'tokens:write', token: Owned): boolean {
  if (token.projectId !== null) return actor.rights.holds(scope, token.projectId);
  if (isOwn(actor, token)) return actor.rights.holds(scope);
  return actor.rights.everywhere && actor.rights.holds(scope);
}

/** Whoever may change a token may see it. */
export const maySee = (actor: Actor, token: Owned): boolean =>
  mayUseScopeOn(actor, 'tokens:read', token) || mayUseScopeOn(actor, 'tokens:write', token);

/** @throws ApiError `not_found`, the same for a token that is not there */
export function mustSee(actor: Actor, token: Owned | null): asserts token is Owned {
  if (!token || !maySee(actor, token)) throw notFound('token');
}

/** @throws ApiError `not_found`, or when the token may be seen, `forbidden` or `insufficient_scope` */
export function mustChange<T extends Owned>(actor: Actor, token: T | null): asserts token is T {
  mustSee(actor, token);
  if (mayUseScopeOn(actor, 'tokens:write', token)) return;
  if (actor.type === 'token') throw lacksScope(['tokens:write']);
  throw forbidden('Your role in this project lets you see its tokens, not change them. Ask an editor or owner of it.');
}

/** A secret is shown to whoever rotates, so nobody rotates another person's token: administrators revoke it instead. */
export function mustBeShownItsSecret(
  actor: Actor,
  known: ScopesService,
  token: Owned & { scopes: readonly string[] },
): void {
  if (token.projectId === null && !isOwn(actor, token))
    throw forbidden('Only its owner may rotate a personal token, because its new secret is shown. You may revoke it.');
  if (token.projectId === null) return;
  // Whoever is shown a project token's secret can do all that it can.
  const { projectId } = token;
  const beyond = token.scopes.filter((scope) => known.isKnown(scope) && !actor.rights.holds(scope, projectId));
  if (beyond.length === 0) return;
  const detail = `Its new secret would be shown, and you do not hold ${beyond.join(', ')} in this project. You may revoke it.`;
  throw actor.type === 'token' ? lacksScope(beyond, detail) : forbidden(detail);
}

/** @throws ApiError naming the scopes that are unknown, or that the caller may not grant */
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
 * A token that makes or changes a token does so only within its own scopes, addresses, rate and end.
 * @throws ApiError saying which is exceeded
 */
export function mustBeWithin(actor: TokenActor, made: Bounds): void {
  const { facts } = actor;
  const beyond = made.scopes.filter((scope) => !actor.rights.holdsSomewhere(scope) && !facts.scopes.includes(scope));
  if (beyond.length) throw lacksScope(beyond, `The token that makes this request does not hold ${beyond.join(', ')}.`);
  const complain = (what: string) =>
    forbidden(
      `A token makes and changes tokens only within its own bounds: ${what}. Choose narrower ones, or sign in.`,
    );
  if (!addressesWithin(made.allowedIps, facts.allowedIps))
    throw complain(`allowedIps must lie within ${facts.allowedIps.join(', ')}`);
  if (facts.rateLimit && !rateWithin(made.rateLimit, facts.rateLimit))
    throw complain(`rateLimit must not exceed ${facts.rateLimit.limit} in ${facts.rateLimit.windowSeconds} s`);
  if (made.rateLimit && (facts.rates?.length ?? 0) >= LIMITS.rateBucketsMax)
    throw forbidden(
      `A use is held to at most ${LIMITS.rateBucketsMax} rate limits, and this token bears as many. Sign in.`,
    );
  if (facts.expiresAtMs > 0 && (made.end === null || made.end.getTime() > facts.expiresAtMs))
    throw complain(`it must expire by ${new Date(facts.expiresAtMs).toISOString()}`);
}

/** Never lets more through than the outer one, in a short while or a long one. */
const rateWithin = (inner: RateLimit | null, outer: RateLimit): boolean =>
  inner !== null &&
  inner.limit <= outer.limit &&
  inner.limit * outer.windowSeconds <= outer.limit * inner.windowSeconds;

const LIFETIME_MAX_MS = 100 * 366 * 86_400_000;

/** The end asked for. @returns undefined when none was named, null for never */
export function chosenEnd(
  body: { expiresAt?: string | null | undefined; expiresInSeconds?: number | undefined },
  now: Date,
): Date | null | undefined {
  if (body.expiresInSeconds !== undefined) return new Date(now.getTime() + body.expiresInSeconds * 1000);
  if (body.expiresAt === undefined || body.expiresAt === null) return body.expiresAt;
  const end = new Date(body.expiresAt);
  if (end <= now) throw badField('expiresAt', 'must lie ahead');
  if (end.getTime() - now.getTime() > LIFETIME_MAX_MS) throw badField('expiresAt', 'must lie within 100 years');
  return end;
}

/** What the policy looks at. */
interface Demanded {
  createdAt: Date;
  end: Date | null;
  allowedIps: readonly string[];
}

/**
 * @param tokens their addresses as canonical CIDRs; their ends, null for never
 * @throws ApiError naming the field that the policy does not allow, and what it demands
 */
export function mustMeetPolicy(policy: Policy, ...tokens: readonly Demanded[]): void {
  for (const token of tokens) {
    mustEndInTime(policy, token);
    mustMeetAddresses(policy, token.allowedIps);
  }
}

function mustEndInTime(policy: Policy, { createdAt, end }: { createdAt: Date; end: Date | null }): void {
  const { lifetimeSecondsMax, expiryRequired } = policy;
  if (end === null) {
    if (!expiryRequired && lifetimeSecondsMax === null) return;
    throw badField('expiresAt', 'the policy here allows no token without an end: give expiresInSeconds');
  }
  if (lifetimeSecondsMax !== null && end.getTime() - createdAt.getTime() > lifetimeSecondsMax * 1_000)
    throw badField('expiresAt', `the policy here allows a token to live ${lifetimeSecondsMax} seconds at most`);
}

/** Only the demand on addresses: for changes that leave the end as it is. */
export function mustMeetAddresses({ allowedIpPrefixes }: Policy, allowedIps: readonly string[]): void {
  if (allowedIpPrefixes.length === 0 || addressesWithin(allowedIps, allowedIpPrefixes)) return;
  throw badField('allowedIps', `the policy here demands addresses within ${allowedIpPrefixes.join(', ')}`);
}

/** The end that a successor keeps, cut to what the policy allows one that begins now. */
export function latestEnd({ lifetimeSecondsMax }: Policy, createdAt: Date, end: Date | null): Date | null {
  if (lifetimeSecondsMax === null) return end;
  const latest = new Date(createdAt.getTime() + lifetimeSecondsMax * 1_000);
  return end === null || end > latest ? latest : end;
}
