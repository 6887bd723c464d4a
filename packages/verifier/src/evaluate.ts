import { DENIAL_REASONS, type DenialReason, type TokenSnapshot } from '@latchkey/contracts';
import { Addresses } from './addresses.js';
import type { Entry, Rights, ScopeList } from './memory.js';
import { denialOf, kindOf, ownerTypeOf, ratesOf } from './snapshot.js';
import type { Requirement, Verdict } from './types.js';

/** Result of looking a secret up: a token, null when it is unknown, or why the lookup was not possible. */
export type LookupResult = Entry | null | 'unavailable' | 'rate_limited';

type Scopes = Pick<ScopeList, 'names' | 'set'>;
/** The parts of a token that a verdict depends on. */
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
 * The same verdict as a verifier's, for a token just read from the authority (null: there is none) by a caller without a
 * memory.
 */
export function evaluateToken(snapshot: TokenSnapshot | null, requirement: Requirement, wallMs: number): Verdict {
  if (snapshot === null) return denied('unknown');
  const { kind, ownerType, project, denial, allProjects, allowedIps } = snapshot;
  const scopesOf = (names: readonly string[]): Scopes => ({ names, set: new Set(names) });
  const rights: Known['rights'] = {
    kind: kindOf(kind),
    ownerType: ownerTypeOf(ownerType),
    project,
    denial: denialOf(denial),
    scopes: scopesOf(snapshot.scopes),
    allProjects,
    grants: new Map(snapshot.grants.map((grant) => [grant.project, scopesOf(grant.scopes)])),
    addresses: allowedIps.length > 0 ? new Addresses(allowedIps) : null,
    rates: ratesOf(snapshot),
  };
  return evaluate(
    { id: snapshot.id, expiresAtMs: snapshot.expiresAtMs, owner: { id: snapshot.ownerId }, rights },
    requirement,
    wallMs,
  );
}

/** Whether a request with this requirement is allowed at `wallMs`. Pure. */
export function evaluate(
  found: Known | Exclude<LookupResult, Entry>,
  requirement: Requirement,
  wallMs: number,
): Verdict {
  if (found === null) return denied('unknown');
  if (typeof found === 'string') return denied(found);
  const { id: tokenId, expiresAtMs, rights } = found;
  if (rights.denial !== '') return denied(rights.denial, tokenId);
  if (expiresAtMs > 0 && wallMs >= expiresAtMs) return denied('expired', tokenId);
  if (rights.addresses !== null && requirement.ip !== undefined && !rights.addresses.include(requirement.ip))
    return denied('address_not_allowed', tokenId);
  const granted = scopesIn(found, requirement.project);
  if (granted === undefined) return denied('wrong_project', tokenId);
  for (const scope of requirement.scopes) if (!granted.set.has(scope)) return denied('insufficient_scope', tokenId);
  return {
    allowed: true,
    principal: {
      tokenId,
      kind: rights.kind,
      ownerType: rights.ownerType,
      ownerId: found.owner.id,
      project: requirement.project || rights.project,
      scopes: granted.names,
      expiresAtMs,
      rates: rights.rates,
    },
  };
}

/** The token's scopes in the project, or outside any when none is named; undefined when it has no access to it. */
function scopesIn({ rights }: Known, project: string | undefined): Scopes | undefined {
  if (!project) return rights.scopes;
  if (rights.kind === 'prj') return project === rights.project ? rights.scopes : undefined;
  return rights.grants?.get(project) ?? (rights.allProjects ? rights.scopes : undefined);
}

/** Denials without a token id, shared. */
const nameless = new Map<DenialReason, Verdict>(
  DENIAL_REASONS.map((reason) => [reason, Object.freeze({ allowed: false, reason })]),
);

export function denied(reason: DenialReason, tokenId?: string): Verdict {
  return tokenId === undefined ? nameless.get(reason)! : { allowed: false, reason, tokenId };
}
