import { IDLE_SCAN_NAMES, IDLE_SCANS, type IdleScan } from '@latchkey/runtime';
import { Injectable } from '@nestjs/common';
import { SYSTEM } from '../authorization/index.js';
import { type Change, Database } from '../database/index.js';
import { RevocationsService } from './revocations.service.js';

/** How often each process scans from the beginning, to find tokens whose times were set back, for instance by an import. */
const SWEEP_EVERY_MS = 24 * 3_600_000;

/** Revokes unused tokens when the policy requires it. */
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
    for (const scan of IDLE_SCAN_NAMES) {
      const { found, revocation } = await this.db.change(async (change) => {
        const found = await this.#scan(change, scan, limit);
        const cause = { reason: 'policy' as const, comment: `unused for ${found.days} days` };
        return { found, revocation: await this.revocations.revoke(change, SYSTEM, found.ids, cause) };
      });
      await this.revocations.awaitConfirmation(revocation.invalidations, revocation.tokenIds, 0);
      done += found.ids.length;
      more ||= found.ids.length === limit;
    }
    return { done, more };
  }

  async #scan(change: Change, scan: IdleScan, limit: number): Promise<{ ids: string[]; days: number }> {
    const [policy] = await change.read<{ idle_days: number | null }>(['SELECT idle_days FROM policy']);
    const days = policy?.idle_days ?? 0;
    if (days === 0) return { ids: [], days };
    const sweep = Date.now() - (this.#sweptAt.get(scan) ?? 0) > SWEEP_EVERY_MS;
    if (sweep) this.#sweptAt.set(scan, Date.now());
    change.write([
      `INSERT INTO maintenance_marks AS m (name, at) VALUES ($1, 'epoch')
       ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE $2`,
      [scan, sweep],
    ]);
    const [watermark] = await change.read<{ at: Date; limit_at: Date }>([
      `SELECT at, (now() - make_interval(days => $2))::timestamptz(3) AS limit_at FROM maintenance_marks
       WHERE name = $1 FOR UPDATE SKIP LOCKED`,
      [scan, days],
    ]);
    if (!watermark) return { ids: [], days }; // another transaction has this scan
    const idle = await change.read<{ id: string; since: Date }>([
      `${IDLE_SCANS[scan]} FOR NO KEY UPDATE OF t`,
      [watermark.at, watermark.limit_at, limit],
    ]);
    const reached = idle.length === limit ? idle.at(-1)!.since : watermark.limit_at;
    change.write(['UPDATE maintenance_marks SET at = greatest(at, $2) WHERE name = $1', [scan, reached]]);
    return { ids: idle.map(({ id }) => id), days };
  }
}
