import type { Receipt, RevocationReason } from '@latchkey/contracts';
import type { Statement } from '../database/index.js';
import type { ExposureRow } from './exposure.queries.js';
import { STEP_ROWS_MAX } from './exposure.queries.js';

/** A revocation of all tokens this old is marked even without a receipt or a fence. */
const READY_AFTER = '10 minutes';

/** In: who, why, when, invalidation. Out: the new generation. Concurrent calls wait for each other. */
export const raiseGeneration = (
  by: Pick<ExposureRow, 'actor_type' | 'actor_id'>,
  { reason, comment }: { reason: RevocationReason; comment?: string | undefined },
  at: Date,
  invalidationId: string,
): Statement => [
  `WITH raised AS (UPDATE token_generation SET current = current + 1 RETURNING current)
   INSERT INTO revocations_of_all (generation, actor_type, actor_id, reason, comment, at, invalidation_id)
   SELECT current, $1, $2, $3, $4, $5, $6 FROM raised RETURNING generation`,
  [by.actor_type, by.actor_id, reason, comment ?? null, at, invalidationId],
];

/**
 * In: committed invalidation; its receipt. A transaction that issues a token by what it read before that commit held
 * locks by then, so it has a transaction id, and a lower one than this statement's.
 */
export const storeReceipt = (invalidationId: string, receipt: Receipt): Statement => [
  `UPDATE revocations_of_all SET receipt = $2, fence = pg_current_xact_id()
   WHERE invalidation_id = $1 AND receipt IS NULL`,
  [invalidationId, JSON.stringify(receipt)],
];

/** A row of `revocations_of_all` whose tokens are not all marked yet. */
export interface UnmarkedRow {
  generation: number;
  marked_to: string;
}

/** Out: the first whose tokens are to be marked, locked; none while another transaction has it. */
export const CLAIM_UNMARKED = `SELECT generation, marked_to FROM revocations_of_all
  WHERE marked_at IS NULL AND (fence <= pg_snapshot_xmin(pg_current_snapshot()) OR at < now() - interval '${READY_AFTER}')
  ORDER BY generation LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED`;

/**
 * In: generation, last id marked. Marks those of the next rows that it revoked and that are not marked otherwise. Out:
 * whether there are more.
 */
export const MARK_NEXT = `WITH next AS MATERIALIZED (
    SELECT id, generation, revoked_at FROM tokens WHERE id > $2 ORDER BY id LIMIT ${STEP_ROWS_MAX}
  ), ending AS (
    SELECT id FROM tokens WHERE id IN (SELECT id FROM next WHERE generation = $1 - 1 AND revoked_at IS NULL)
      AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE
  ), marked AS (
    UPDATE tokens t SET revoked_at = r.at, revoked_by_type = r.actor_type, revoked_by_id = r.actor_id,
      revocation_reason = r.reason, revocation_comment = r.comment, invalidation_id = r.invalidation_id, receipt = r.receipt
    FROM ending, revocations_of_all r WHERE t.id = ending.id AND r.generation = $1
  ), last AS (SELECT count(*)::int AS looked, max(id::text)::uuid AS id FROM next)
  UPDATE revocations_of_all SET marked_to = COALESCE(last.id, marked_to),
    marked_at = CASE WHEN last.looked < ${STEP_ROWS_MAX} THEN now() END
  FROM last WHERE generation = $1 RETURNING marked_at IS NULL AS more`;
