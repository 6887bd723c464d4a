import { connectingTo, type Logger } from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { AuditChain, AuditService } from '../audit/index.js';
import { SYSTEM } from '../authorization/index.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/index.js';
import { ReceiptsService } from '../invalidation/index.js';

const HOUR_MS = 3_600_000;
/** Far longer than any lease: a verifier whose cursor is older empties its memory. */
export const INVALIDATION_RETENTION_MS = 24 * HOUR_MS;
/** How far ahead audit partitions are created. */
const PARTITIONS_AHEAD_MONTHS = 24;

/** Delete rows past their retention, oldest first, each by an index. In: `$1` at most. */
const PRUNES: readonly string[] = [
  // Idempotency-Keys are valid for 24 hours.
  `DELETE FROM idempotency_keys WHERE (actor, key) IN (
     SELECT actor, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours' ORDER BY created_at LIMIT $1)`,
  `DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at < now() ORDER BY expires_at LIMIT $1)`,
  `DELETE FROM password_resets WHERE (user_id, hash) IN (
     SELECT user_id, hash FROM password_resets WHERE expires_at < now() ORDER BY expires_at LIMIT $1)`,
  // Password emails that no mailer took.
  `DELETE FROM letters WHERE id IN (
     SELECT id FROM letters WHERE created_at < now() - interval '24 hours' ORDER BY created_at LIMIT $1)`,
  // Proofs of closed connections.
  `DELETE FROM authority_proofs WHERE connection IN (
     SELECT connection FROM authority_proofs WHERE proved_at < now() - interval '1 hour' ORDER BY proved_at LIMIT $1)`,
  // Failed sign-ins count for 15 minutes.
  `DELETE FROM sign_in_failures WHERE subject IN (
     SELECT subject FROM sign_in_failures WHERE since < now() - interval '1 hour' ORDER BY since LIMIT $1)`,
  // A repeated request finds a finished exposure for 30 days; later it finds again that every token is revoked.
  `DELETE FROM exposure_members WHERE (exposure_id, token_id) IN (
     SELECT m.exposure_id, m.token_id FROM exposures e JOIN exposure_members m ON m.exposure_id = e.id
     WHERE e.confirmed_at < now() - interval '30 days' LIMIT $1)`,
  `DELETE FROM exposures WHERE id IN (
     SELECT id FROM exposures e WHERE confirmed_at < now() - interval '30 days'
       AND NOT EXISTS (SELECT FROM exposure_members WHERE exposure_id = e.id) ORDER BY confirmed_at LIMIT $1)`,
];

/** Deletes rows past their retention, including audit events and receipts, and creates audit partitions ahead. */
@Injectable()
export class MaintenanceService implements OnApplicationShutdown {
  #retention: Promise<DataSource> | undefined;
  #monthly = 0;

  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly chain: AuditChain,
    private readonly receipts: ReceiptsService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** One bounded step; safe to repeat and to run concurrently. */
  async prune(limit: number): Promise<{ done: number; more: boolean }> {
    let done = 0;
    let more = false;
    const count = (removed: number) => {
      done += removed;
      more ||= removed >= limit;
    };
    for (const statement of PRUNES) {
      count((await this.db.query(`${statement} RETURNING 1`, [limit])).length);
    }
    const [log] = await this.db.query<{ removed: number }>('SELECT log_prune($1, $2) AS removed', [
      INVALIDATION_RETENTION_MS,
      limit,
    ]);
    count(log!.removed);
    const retention = await this.#retentionSource();
    if (retention) count(await this.receipts.prune(retention.source, retention.before, limit));
    if (Date.now() - this.#monthly > HOUR_MS) {
      await this.#maintainMonths(retention);
      this.#monthly = Date.now();
    }
    return { done, more };
  }

  /**
   * Records in the audit log, once for a token, that its secret was used after it was rotated.
   * @returns whether this call recorded it
   */
  async reportUseAfterRotation(tokenId: string, ip: string): Promise<boolean> {
    return this.db.change(async (change) => {
      const [token] = await change.read<{ name: string; project_id: string | null; rotated_to: string | null }>([
        'SELECT name, project_id, rotated_to FROM tokens WHERE id = $1 FOR NO KEY UPDATE',
        [tokenId],
      ]);
      if (!token?.rotated_to) return false;
      const known = await change.read([
        `SELECT 1 FROM audit_events WHERE token_id = $1 AND action = 'token.updated' AND details ? 'usedAfterRotation' LIMIT 1`,
        [tokenId],
      ]);
      if (known.length > 0) return false;
      this.audit.record(change, {
        actor: SYSTEM,
        action: 'token.updated',
        tokenId,
        projectId: token.project_id,
        subject: { type: 'token', id: tokenId, name: token.name },
        details: { usedAfterRotation: { ip } },
      });
      return true;
    });
  }

  async onApplicationShutdown(): Promise<void> {
    await (await this.#retention)?.destroy();
  }

  /** Connection of the retention role, and the time before which it deletes; undefined: nothing is deleted. */
  async #retentionSource(): Promise<Retention | undefined> {
    const { AUDIT_RETENTION_MONTHS: months, RETENTION_DATABASE_URL: url } = this.config;
    if (months === 0 || !url) return undefined;
    this.#retention ??= new DataSource({
      type: 'postgres',
      url,
      poolSize: 1,
      installExtensions: false,
      extra: { Client: connectingTo(Client, () => this.config.RETENTION_DATABASE_URL ?? url) },
    }).initialize();
    // A refused password, say: the next run tries again.
    this.#retention.catch(() => {
      this.#retention = undefined;
    });
    const now = new Date();
    const before = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months, 1));
    return { source: await this.#retention, before };
  }

  async #maintainMonths(retention: Retention | undefined): Promise<void> {
    await this.db.query('SELECT audit_make_partitions($1)', [PARTITIONS_AHEAD_MONTHS]);
    if (!retention) {
      if (this.config.AUDIT_RETENTION_MONTHS > 0)
        this.logger.error(
          'AUDIT_RETENTION_MONTHS is set, but not RETENTION_DATABASE_URL: no audit event and no receipt is deleted',
        );
      return;
    }
    const { source, before } = retention;
    const events = await this.chain.retire(source, before);
    if (events > 0) this.logger.info({ events, before }, 'audit events past their retention were deleted');
  }
}

interface Retention {
  source: DataSource;
  before: Date;
}
