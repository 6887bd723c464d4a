import { hash } from 'node:crypto';
import { canonicalJson, type IssueTokenBody } from '@latchkey/contracts';
import type { Actor } from '../authorization/index.js';
import { type Change } from '../database/index.js';
import { Refusal } from '../http/index.js';
import { actorId } from './token.repository.js';

/**
 * Claims an Idempotency-Key for the token about to be made.
 * @returns the token that an earlier request with this key made; null when this request is the first
 * @throws Refusal `idempotency_conflict` when the earlier request had another body
 */
export async function claimKey(
  change: Change,
  actor: Actor,
  key: string,
  body: IssueTokenBody,
  tokenId: string,
): Promise<string | null> {
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
    throw new Refusal(
      'idempotency_conflict',
      'This Idempotency-Key came before with another body. Use a new key for a new token.',
    );
  return earlier!.token_id;
}
