import { Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { SYSTEM } from '../authorization/index.js';
import { Database } from '../database/index.js';
import type { TokenEntity } from './token.entity.js';
import { entryOf } from './token.repository.js';

type Due = Pick<TokenEntity, 'id' | 'name' | 'projectId'> & { expires_at: Date };

/**
 * Records in the audit log that tokens have expired. Verifiers check the expiry themselves, so no invalidation and no
 * column of the token is written.
 */
@Injectable()
export class ExpiryService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
  ) {}

  /**
   * Records expired tokens: at most `limit` of those behind the watermark, and of those that were near their expiry when
   * written. The cost depends on what is due; concurrent calls wait for each other and take different tokens. Each token is
   * recorded once.
   */
  async expireDue(limit: number): Promise<{ done: number; more: boolean }> {
    return this.db.change(async (change) => {
      // After a clock that was ahead is corrected, the range that the watermark skipped is scanned again.
      const [watermark] = await change.read<{ at: Date; token_id: string; ahead: boolean }>([
        'SELECT least(at, now()) AS at, token_id, at > now() AS ahead FROM expiry_mark FOR UPDATE',
      ]);
      const passed = await change.read<Due>([SELECT_EXPIRY_DUE, [limit, watermark!.at, watermark!.token_id]]);
      const soon = await change.read<Due>([TAKE_EXPIRY_SOON, [limit]]);
      const due = new Map([...passed, ...soon].map((token) => [token.id, token]));
      const fresh = due.size ? await change.read<{ token_id: string }>([INSERT_EXPIRED, [[...due.keys()]]]) : [];
      const expired = fresh.map(({ token_id }) => due.get(token_id)!);
      this.audit.recordAll(
        change,
        expired.map((token) => entryOf(SYSTEM, 'token.expired', token)),
      );
      const last = passed.at(-1);
      if (last) change.write([MOVE_WATERMARK, [last.expires_at, last.id]]);
      else if (watermark!.ahead) change.write([MOVE_WATERMARK, [watermark!.at, watermark!.token_id]]);
      return { done: expired.length, more: passed.length === limit || soon.length > 0 };
    });
  }
}

/** In: `$1` at most, `$2` and `$3` the watermark. Out: expired tokens after the watermark, in its order. */
export const SELECT_EXPIRY_DUE = `SELECT id, expires_at, name, project_id AS "projectId" FROM tokens
  WHERE (expires_at, id) > ($2::timestamptz, $3::uuid) AND expires_at <= now() AND revoked_at IS NULL AND expires_at IS NOT NULL
  ORDER BY expires_at, id LIMIT $1`;

/** In: `$1` at most. Out: tokens that were near their expiry when written and have expired; removed from the list. */
const TAKE_EXPIRY_SOON = `WITH taken AS (
    DELETE FROM expiry_soon WHERE token_id IN (
      SELECT token_id FROM expiry_soon WHERE ends_at <= now() ORDER BY ends_at LIMIT $1)
    RETURNING token_id
  )
  SELECT id, expires_at, name, project_id AS "projectId" FROM tokens JOIN taken ON id = token_id
  WHERE expires_at <= now() AND revoked_at IS NULL ORDER BY expires_at, id`;

const MOVE_WATERMARK = 'UPDATE expiry_mark SET at = $1, token_id = $2';

/** In: tokens. Out: those not recorded before. */
const INSERT_EXPIRED = `INSERT INTO expired_tokens (token_id) SELECT id FROM unnest($1::uuid[]) AS id ORDER BY id
  ON CONFLICT DO NOTHING RETURNING token_id`;
