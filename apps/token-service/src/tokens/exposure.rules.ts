import type { Receipt, RevocationReason } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import type { AuditEntry } from '../audit/index.js';
import { actorId, type NamedActor } from '../authorization/index.js';
import type { Statement } from '../database/index.js';
import type { NewInvalidation } from '../invalidation/index.js';
import type { Counts, ExposureRow, NewMember, TokenStateRow } from './exposure.queries.js';
import { entryOf } from './token.repository.js';

/**
 * A token that an exposure revokes, locked, and why: it was named; its secret was shown to a member, as that member's
 * successor (`successor`) or not (`shown`); or it derives from a member. `cover` is an ancestor that is a member: checks
 * reject the token since that one was revoked, and the invalidation is of that one.
 */
export type Target = { row: TokenStateRow } & (
  | { as: 'named'; cover: null }
  | { as: 'successor' | 'shown'; shownTo: string; cover: string | null }
  | { as: 'descendant'; cover: string }
);

/** Who revokes tokens, why, and when. */
export interface Attribution {
  actor: NamedActor;
  reason: RevocationReason;
  comment: string | null;
  /** For tokens named by a filter: the exposure, which their audit events name. */
  batch: string | null;
  at: Date;
}

interface RevocationPlan {
  newInvalidations: NewInvalidation[];
  writes: Statement[];
  members: NewMember[];
  counts: Counts;
  entries: AuditEntry[];
}

/** Everything to write in order to revoke these tokens; tokens revoked already stay as they are. */
export function planRevocation(by: Attribution, targets: readonly Target[]): RevocationPlan {
  const planned = targets.map((token) => ({
    ...token,
    // An earlier revocation that was never confirmed can have no one waiting for it.
    invalidationId: token.cover === null && !token.row.confirmed ? newId() : null,
  }));
  const fresh = planned.filter(({ row }) => !row.revoked);
  const counted = (as: Target['as']) => fresh.filter((token) => kindOf(token) === as).length;
  return {
    newInvalidations: planned.flatMap(({ row, invalidationId: id }) =>
      id === null ? [] : [{ id, kind: 'token' as const, subject: row.id, cut: true }],
    ),
    writes: planned.length > 0 ? [markTargets(by, planned)] : [],
    members: planned.flatMap((token): NewMember[] => {
      if (token.as === 'descendant') return [];
      const shown_to = token.as === 'named' ? null : token.shownTo;
      const covered = token.cover !== null;
      return [{ token_id: token.row.id, shown_to, covered, invalidation_id: token.invalidationId }];
    }),
    counts: {
      tokens: fresh.length,
      successors: counted('successor'),
      descendants: counted('descendant'),
      shown: counted('shown'),
    },
    entries: fresh.map((token) => revokedEntry(by, token)),
  };
}

/** A token that derives from a member was shown to it too: it counts as a descendant. */
const kindOf = (token: Target): Target['as'] =>
  token.as === 'shown' && token.cover !== null ? 'descendant' : token.as;

/** In: tokens, each with its invalidation, or with the member that covers it, whose invalidation and receipt it shares. */
function markTargets(
  { actor, reason, comment, at }: Attribution,
  targets: readonly { row: TokenStateRow; cover: string | null; invalidationId: string | null }[],
): Statement {
  const { actor_type, actor_id } = actorColumns(actor);
  const listed = targets.map(({ row, cover, invalidationId }) => ({
    id: row.id,
    cover,
    invalidation_id: invalidationId,
  }));
  return [
    `WITH ending AS (
       SELECT e.id, COALESCE(e.invalidation_id, c.invalidation_id) AS invalidation_id, c.receipt
       FROM jsonb_to_recordset($1::jsonb) AS e(id uuid, invalidation_id uuid, cover uuid)
       LEFT JOIN tokens c ON c.id = e.cover
     ), again AS (
       UPDATE tokens t SET invalidation_id = e.invalidation_id FROM ending e
       WHERE t.id = e.id AND t.revoked_at IS NOT NULL AND t.receipt IS NULL
     )
     UPDATE tokens t SET revoked_at = $2, revoked_by_type = $3, revoked_by_id = $4, revocation_reason = $6,
       revocation_comment = $5, invalidation_id = e.invalidation_id, receipt = e.receipt
     FROM ending e WHERE t.id = e.id AND t.revoked_at IS NULL`,
    [JSON.stringify(listed), at, actor_type, actor_id, comment, reason],
  ];
}

function revokedEntry({ actor, reason, comment, batch }: Attribution, token: Target): AuditEntry {
  return entryOf(actor, 'token.revoked', token.row, {
    reason,
    ...(comment !== null && { comment }),
    ...(batch !== null && { batch }),
    ...(token.as !== 'named' && { as: kindOf(token) }),
    ...((token.as === 'shown' || token.as === 'successor') && { shownTo: token.shownTo }),
    ...(token.as === 'descendant' && { derivedFrom: token.cover }),
  });
}

export const actorColumns = (actor: NamedActor): Pick<ExposureRow, 'actor_type' | 'actor_id' | 'actor_name'> => ({
  actor_type: actor.type,
  actor_id: actorId(actor),
  actor_name: actor.name,
});

/** Who reported it, for tokens revoked after the response. */
export function actorOf({ actor_type, actor_id, actor_name: name }: ExposureRow): NamedActor {
  if (actor_id === null || actor_type === 'system') return { type: 'system', name };
  return actor_type === 'user' ? { type: 'user', userId: actor_id, name } : { type: 'token', tokenId: actor_id, name };
}

const LEDGER_OUTCOMES = ['failed', 'off', 'written'] as const;

/**
 * One receipt of several confirmations, with an id of its own: each verifier's last confirmation.
 * @param sinceMs from the start of the exposure to the start of the added confirmation
 */
export function mergeReceipts(before: Receipt | null, added: Receipt, sinceMs: number): Receipt {
  const verifiers = new Map((before?.verifiers ?? []).map((verifier) => [verifier.id, verifier]));
  for (const verifier of added.verifiers) {
    const ms = Math.round((sinceMs + verifier.ms) * 10) / 10;
    if (ms >= (verifiers.get(verifier.id)?.ms ?? 0)) verifiers.set(verifier.id, { ...verifier, ms });
  }
  const elapsedMs = Math.max(before?.elapsedMs ?? 0, Math.round((sinceMs + added.elapsedMs) * 10) / 10);
  const isLater = before === null || added.confirmedAt > before.confirmedAt;
  // Of several steps the worst.
  const ledger = LEDGER_OUTCOMES.find((outcome) => added.ledger === outcome || before?.ledger === outcome);
  return {
    id: newId(),
    confirmedAt: isLater ? added.confirmedAt : before.confirmedAt,
    elapsedMs,
    verifiers: [...verifiers.values()],
    ...(ledger && { ledger }),
  };
}
