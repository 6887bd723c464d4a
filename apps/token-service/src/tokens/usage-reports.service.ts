import type { Usage, usageQuery } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { z } from 'zod';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { badField } from '../http/index.js';
import { TokensService } from './tokens.service.js';

const DAY_MS = 86_400_000;
const RANGE_DAYS_DEFAULT = 30;
const RANGE_DAYS_MAX = 366;
const BUCKETS_MAX = 20_000;
const CALLERS_MAX = 200;

/** Reads the usage of tokens that jobs has recorded. */
@Injectable()
export class ReportsService {
  constructor(
    private readonly db: Database,
    private readonly tokens: TokensService,
  ) {}

  /** Verifications by hour, route and status, newest first, over at most 366 days (default 30), and the callers. */
  async usage(actor: Actor, tokenId: string, query: z.output<typeof usageQuery>): Promise<Usage> {
    await this.tokens.get(actor, tokenId);
    const to = query.to ? new Date(query.to) : new Date();
    const from = query.from ? new Date(query.from) : new Date(to.getTime() - RANGE_DAYS_DEFAULT * DAY_MS);
    if (from > to) throw badField('from', 'must not be after `to`');
    if (to.getTime() - from.getTime() > RANGE_DAYS_MAX * DAY_MS)
      throw badField('from', `must be within ${RANGE_DAYS_MAX} days before \`to\``);
    const [buckets, callers, [total]] = await Promise.all([
      this.db.query<{ hour: Date; route: string; status: string; count: string }>(
        `SELECT hour, route, status, count FROM usage_hourly WHERE token_id = $1 AND hour >= date_trunc('hour', $2::timestamptz)
           AND hour <= $3 ORDER BY hour DESC, route, status LIMIT $4`,
        [tokenId, from, to, BUCKETS_MAX],
      ),
      this.db.query<{ ip: string; user_agent: string; first_seen: Date; last_seen: Date; count: string }>(
        `SELECT ip, user_agent, first_seen, last_seen, count FROM usage_callers WHERE token_id = $1 AND last_seen >= $2
           AND first_seen <= $3 ORDER BY last_seen DESC LIMIT $4`,
        [tokenId, from, to, CALLERS_MAX],
      ),
      this.db.query<{ total: string }>(
        `SELECT COALESCE(sum(count), 0) AS total FROM usage_hourly WHERE token_id = $1
           AND hour >= date_trunc('hour', $2::timestamptz) AND hour <= $3`,
        [tokenId, from, to],
      ),
    ]);
    return {
      total: Number(total!.total),
      buckets: buckets.map((row) => ({ ...row, hour: row.hour.toISOString(), count: Number(row.count) })),
      callers: callers.map((row) => ({
        ip: row.ip,
        userAgent: row.user_agent,
        firstSeen: row.first_seen.toISOString(),
        lastSeen: row.last_seen.toISOString(),
        count: Number(row.count),
      })),
    };
  }
}
