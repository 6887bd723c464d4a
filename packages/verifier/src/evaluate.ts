import { DENIAL_REASONS, type DenialReason, type TokenFacts } from '@latchkey/contracts';
import { Addresses } from './addresses.js';
import type { Entry, Rights, ScopeList } from './memory.js';
import { denialOf, kindOf, ownerTypeOf, ratesOf } from './snapshot.js';
import type { Requirement, Verdict } from './types.js';

/** What is known about a secret: a token, nothing (null), or why nobody could tell. */
export type Answer = Entry | null | 'unavailable' | 'rate_limited';

type Scopes = Pick<ScopeList, 'names' | 'set'>;
/** What a decision looks at of a token. */
interface Known {
  readonly id: string;
  readonly expiresAtMs: number;
  readonly owner: { readonly id: string };
  readonly rights: Pick<Rights, 'kind' | 'ownerType' | 'project' | 'denial' | 'allProjects' | 'addresses' | 'rates'> & {
    readonly scopes: Scopes;
    readonly grants: ReadonlyMap<string, Scopes> | null;
  };
}

/**
 * The same decision as a verifier's, about a token just read from the authority (null: there is none), for whoever has
 * it at hand and keeps no memory.
 */
export function evaluateToken(facts: TokenFacts | null, requirement: Requirement, wallMs: number): Verdict {
  if (facts === null) return denied('unknown');
  const { kind, ownerType, project, denial, allProjects, allowedIps } = facts;
  const scopesOf = (names: readonly string[]): Scopes => ({ names, set: new Set(names) });
  const rights: Known['rights'] = {
    kind: kindOf(kind),
    ownerType: ownerTypeOf(ownerType),
    project,
    denial: denialOf(denial),
    scopes: scopesOf(facts.scopes),
    allProjects,
    grants: new Map(facts.grants.map((grant) => [grant.project, scopesOf(grant.scopes)])),
    addresses: allowedIps.length > 0 ? new Addresses(allowedIps) : null,
    rates: ratesOf(facts),
  };
  return evaluate(
    { id: facts.id, expiresAtMs: facts.expiresAtMs, owner: { id: facts.ownerId }, rights },
    requirement,
    wallMs,
  );
}

/** Whether a request that needs this may pass now. Pure; the wall clock is the caller's. */
export function evaluate(answer: Known | Exclude<Answer, Entry>, requirement: Requirement, wallMs: number): Verdict {
  if (answer === null) return denied('unknown');
  if (typeof answer === 'string') return denied(answer);
  const { id: tokenId, expiresAtMs, rights } = answer;
  if (rights.denial !== '') return denied(rights.denial, tokenId);
  if (expiresAtMs > 0 && wallMs >= expiresAtMs) return denied('expired', tokenId);
  if (rights.addresses !== null && requirement.ip !== undefined && !rights.addresses.include(requirement.ip))
    return denied('address_not_allowed', tokenId);
  const held = scopesIn(answer, requirement.project);
  if (held === undefined) return denied('wrong_project', tokenId);
  for (const scope of requirement.scopes) if (!held.set.has(scope)) return denied('insufficient_scope', tokenId);
  return {
    allowed: true,
    principal: {
      tokenId,
      kind: rights.kind,
      ownerType: rights.ownerType,
      ownerId: answer.owner.id,
      project: requirement.project || rights.project,
      scopes: held.names,
      expiresAtMs,
      rates: rights.rates,
    },
  };
}

/** What the token may do in the project, or outside any when none is named; undefined when it has no business there. */
function scopesIn({ rights }: Known, project: string | undefined): Scopes | undefined {
  if (!project) return rights.scopes;
  if (rights.kind === 'prj') return project === rights.project ? rights.scopes : undefined;
  return rights.grants?.get(project) ?? (rights.allProjects ? rights.scopes : undefined);
}

/** Denials that name no token are made once. */
const nameless = new Map<DenialReason, Verdict>(
  DENIAL_REASONS.map((reason) => [reason, Object.freeze({ allowed: false, reason })]),
);

export function denied(reason: DenialReason, tokenId?: string): Verdict {
  return tokenId === undefined ? nameless.get(reason)! : { allowed: false, reason, tokenId };
}
