import { Injectable } from '@nestjs/common';
import { SYSTEM } from '../authorization/index.js';
import { Database, Last, rows, type Tx } from '../database/index.js';
import { RevocationsService } from './revocations.service.js';

/**
 * Two looks that find idle tokens by an index of when they were last used, or made when they never were. Each goes from
 * where the last look ended to the policy's limit, so the cost follows what falls due.
 * In: `$1` from, `$2` to, `$3` at most. Out: tokens, longest idle first, locked.
 */
const LOOKS = {
  'idle since last use': `SELECT t.id, u.last_used_at AS since FROM token_usage u JOIN tokens t ON t.id = u.token_id
     WHERE u.last_used_at >= $1 AND u.last_used_at < $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
     ORDER BY u.last_used_at LIMIT $3 FOR NO KEY UPDATE OF t`,
  'idle since issue': `SELECT t.id, t.created_at AS since FROM tokens t
     WHERE t.created_at >= $1 AND t.created_at < $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
       AND NOT EXISTS (SELECT FROM token_usage u WHERE u.token_id = t.id)
     ORDER BY t.created_at LIMIT $3 FOR NO KEY UPDATE OF t`,
} as const;

/** So often each process looks from the beginning: for tokens whose times were set back, by an import say. */
const SWEEP_EVERY_MS = 24 * 3_600_000;

/** Revokes what nobody uses, when the policy says so. */
@Injectable()
export class IdleService {
  readonly #sweptAt = new Map<string, number>();

  constructor(
    private readonly db: Database,
    private readonly revocations: RevocationsService,
  ) {}

  /** Revokes as `policy` at most `limit` tokens that were not used for longer than the policy allows. */
  async revokeIdle(limit: number): Promise<{ done: number; more: boolean }> {
    let done = 0;
    let more = false;
    for (const look of Object.keys(LOOKS) as (keyof typeof LOOKS)[]) {
      const { found, ended } = await this.db.transaction(async (tx) => {
        const found = await this.#look(tx, look, limit);
        const cause = { reason: 'policy' as const, comment: `unused for ${found.days} days` };
        const { writes, result } = await this.revocations.revoke(tx, SYSTEM, found.ids, cause);
        return new Last(writes, (rows) => ({ found, ended: result(rows) }));
      });
      await this.revocations.settle(ended.invalidations, ended.tokenIds, 0);
      done += found.ids.length;
      more ||= found.ids.length === limit;
    }
    return { done, more };
  }

  async #look(tx: Tx, look: keyof typeof LOOKS, limit: number): Promise<{ ids: string[]; days: number }> {
    const [policy] = await rows<{ idle_days: number | null }>(tx, 'SELECT idle_days FROM policy');
    const days = policy?.idle_days ?? 0;
    if (days === 0) return { ids: [], days };
    const sweep = Date.now() - (this.#sweptAt.get(look) ?? 0) > SWEEP_EVERY_MS;
    if (sweep) this.#sweptAt.set(look, Date.now());
    await tx.query(
      `INSERT INTO maintenance_marks AS m (name, at) VALUES ($1, 'epoch')
       ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE $2`,
      [look, sweep],
    );
    const [mark] = await rows<{ at: Date; limit_at: Date }>(
      tx,
      `SELECT at, (now() - make_interval(days => $2))::timestamptz(3) AS limit_at FROM maintenance_marks
       WHERE name = $1 FOR UPDATE SKIP LOCKED`,
      [look, days],
    );
    if (!mark) return { ids: [], days }; // another step is at it
    const idle = await rows<{ id: string; since: Date }>(tx, LOOKS[look], [mark.at, mark.limit_at, limit]);
    const reached = idle.length === limit ? idle.at(-1)!.since : mark.limit_at;
    await tx.query('UPDATE maintenance_marks SET at = greatest(at, $2) WHERE name = $1', [look, reached]);
    return { ids: idle.map(({ id }) => id), days };
  }
}
