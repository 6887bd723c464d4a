import type { Invalidation, Receipt } from '@latchkey/contracts';
import { type Statement, together } from '../database/index.js';

/** What a receipt is about: an actor who may see one of these may see the receipt. */
export interface About {
  tokenIds?: readonly string[];
  userId?: string;
  projectId?: string;
}

/** A receipt to be stored. */
export interface NewReceipt {
  receipt: Receipt;
  about: About;
}

/** The subjects of invalidations. */
export function aboutOf(invalidations: readonly Invalidation[]): About {
  const of = (kind: Invalidation['kind']) =>
    invalidations.filter((invalidation) => invalidation.kind === kind).map(({ subject }) => subject);
  const [userId] = of('owner');
  const [projectId] = of('project');
  return { tokenIds: of('token'), ...(userId && { userId }), ...(projectId && { projectId }) };
}

/** In: receipts. */
export const insertReceipts = (receipts: readonly NewReceipt[]): Statement => [
  `INSERT INTO receipts (id, token_ids, user_id, project_id, body)
   SELECT id, token_ids, user_id, project_id, body FROM jsonb_to_recordset($1::jsonb)
     AS r(id uuid, token_ids uuid[], user_id uuid, project_id uuid, body jsonb)
   ON CONFLICT DO NOTHING`,
  [
    JSON.stringify(
      receipts.map(({ receipt, about: { tokenIds = [], userId, projectId } }) => ({
        id: receipt.id,
        token_ids: tokenIds,
        user_id: userId ?? null,
        project_id: projectId ?? null,
        body: receipt,
      })),
    ),
  ],
];

/** In: tokens with their receipts, invalidations; receipts. Of several receipts of one change a token keeps the first. */
export const storeWithTokens = (
  ofTokens: readonly { id: string; receipt: Receipt }[],
  invalidationIds: readonly string[],
  receipts: readonly NewReceipt[],
): Statement =>
  together(
    [
      `UPDATE tokens t SET receipt = k.receipt FROM unnest($1::uuid[], $2::jsonb[]) AS k(id, receipt)
       WHERE t.id = k.id AND t.invalidation_id = ANY ($3::uuid[]) AND t.receipt IS NULL`,
      [ofTokens.map(({ id }) => id), ofTokens.map(({ receipt }) => JSON.stringify(receipt)), invalidationIds],
    ],
    insertReceipts(receipts),
  );

/** In: a time. Out: the lowest UUIDv7 of that millisecond. */
export const firstIdAt = (at: Date): string => {
  const hex = at.getTime().toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
};

/** In: most rows, id; for `latchkey_retention` alone. Removes receipts made before that id. */
export const PRUNE_RECEIPTS = `DELETE FROM receipts WHERE id IN (
  SELECT id FROM receipts WHERE id < $2 ORDER BY id LIMIT $1)`;
