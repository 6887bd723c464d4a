import type { Logger } from '@latchkey/runtime';
import { hashSecret, parse } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import type { SystemActor } from '../authorization/index.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { type Change, Database } from '../database/index.js';
import { atMultiplesOf, RatesService, requestContext } from '../http/index.js';
import { lockRows, SnapshotService } from '../verification/index.js';
import { ClosuresService, type StartedExposure } from './closures.service.js';
import { selectLive, selectUnreported, type TokenStateRow } from './exposure.queries.js';
import type { TokenEntity } from './token.entity.js';
import { entryOf } from './token.repository.js';

const FINDER: SystemActor = { type: 'system', name: 'revoke-exposed' };

/** Responses are sent at whole multiples of this, so that their time reveals nothing about which secrets were real. */
const RESPONSE_STEP_MS = 500;

/** Revokes tokens whose secrets were found exposed: possession of the secret is the permission. */
@Injectable()
export class ExposuresService {
  constructor(
    private readonly db: Database,
    private readonly snapshots: SnapshotService,
    private readonly closures: ClosuresService,
    private readonly audit: AuditService,
    private readonly rates: RatesService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * Revokes as `exposed` the live tokens whose secrets are among the strings, in one transaction that has committed when
   * this returns; then, in the background, all tokens whose secrets those were shown. No caller waits for confirmation. The
   * secret of a revoked or expired token revokes nothing: finding an old secret must not stop live tokens.
   * @returns how many strings were received, which reveals nothing about them
   * @throws ApiError `rate_limited`; `unavailable` when a secret may be stored under a pepper that this process lacks:
   *   those found are revoked all the same
   */
  async revokeExposed(secrets: readonly string[]): Promise<{ accepted: number }> {
    await this.rates.count('revoke-exposed', requestContext.getStore()?.ip ?? '', { max: 20, windowSeconds: 60 });
    await atMultiplesOf(RESPONSE_STEP_MS, () => this.#revoke(secrets));
    return { accepted: secrets.length };
  }

  async #revoke(secrets: readonly string[]): Promise<void> {
    const wellFormed = [...new Set(secrets)].filter((secret) => parse(secret, this.config.TOKEN_PREFIX).ok);
    const { ids, missing } = await this.snapshots.idsByHashes(wellFormed.map(hashSecret));
    if (ids.length > 0) await this.#revokeFound(ids);
    if (missing) throw missing;
  }

  async #revokeFound(ids: string[]): Promise<void> {
    const started = await this.db.change<StartedExposure | null>(async (change) => {
      await lockRows(change, 'tokens', ids);
      const live = await change.read<TokenStateRow>(selectLive(ids));
      const liveIds = new Set(live.map(({ id }) => id));
      await this.#report(
        change,
        ids.filter((id) => !liveIds.has(id)),
      );
      return live.length > 0 ? this.closures.start(change, FINDER, live, {}) : null;
    });
    if (!started) return;
    this.closures.finish(started, undefined).catch((error: Error) => {
      // Committed already: every renewal of a lease reads it, and jobs has another replica continue with the rest.
      this.logger.warn({ reason: error.message }, 'confirming a revocation of exposed tokens failed; jobs retries it');
    });
  }

  /** Reports secrets of revoked or expired tokens to owners and administrators, who can revoke related live tokens. */
  async #report(change: Change, ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    const unreported = await change.read<UnreportedRow>(selectUnreported(ids));
    this.audit.recordAll(
      change,
      unreported.map(({ rotatedTo, ...token }) =>
        entryOf(FINDER, 'token.reported', token, rotatedTo ? { rotatedTo } : {}),
      ),
    );
  }
}

type UnreportedRow = Pick<TokenEntity, 'id' | 'name' | 'projectId' | 'rotatedTo'>;
