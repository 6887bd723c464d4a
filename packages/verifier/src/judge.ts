import { isIPv6 } from 'node:net';
import { DENIAL_REASONS, type DenialReason } from '@latchkey/contracts';
import type { Entry, ScopeList } from './memory.js';
import type { Requirement, Verdict } from './types.js';

/** What is known about a secret: a token, nothing (null), or why nobody could tell. */
export type Answer = Entry | null | 'unavailable' | 'rate_limited';

/** Whether a request that needs this may pass now. Pure; the wall clock is the caller's. */
export function judge(answer: Answer, requirement: Requirement, wallMs: number): Verdict {
  if (answer === null) return denied('unknown');
  if (typeof answer === 'string') return denied(answer);
  const { id: tokenId, expiresAtMs, rights } = answer;
  if (rights.denial !== '') return denied(rights.denial, tokenId);
  if (expiresAtMs > 0 && wallMs >= expiresAtMs) return denied('expired', tokenId);
  if (rights.addresses !== null && requirement.ip !== undefined) {
    const { ip } = requirement;
    // An address that is none matches nothing.
    if (!rights.addresses.check(ip, isIPv6(ip) ? 'ipv6' : 'ipv4')) return denied('address_not_allowed', tokenId);
  }
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
      rateLimit: rights.rateLimit,
    },
  };
}

/** What the token may do in the project, or outside any when none is named; undefined when it has no business there. */
function scopesIn({ rights }: Entry, project: string | undefined): ScopeList | undefined {
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
