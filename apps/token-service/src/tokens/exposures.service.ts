import type { Logger } from '@latchkey/runtime';
import { hashSecret, parse } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import type { SystemActor } from '../authorization/index.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { type Change, Database } from '../database/index.js';
import { atMultiplesOf, RatesService, requestContext } from '../http/index.js';
import { lockRows, SnapshotService } from '../verification/index.js';
import { type Begun, ClosuresService } from './closures.service.js';
import { type StandingRow, selectLiving, selectUntold } from './exposure.queries.js';
import type { TokenEntity } from './token.entity.js';
import { entryOf } from './token.repository.js';

const FINDER: SystemActor = { type: 'system', name: 'revoke-exposed' };

/** Answers come at whole multiples of this, so that their time tells nothing about which secrets were real. */
const FLOOR_MS = 500;

/** Secrets that turned up where they should not be: whoever holds them may end them. */
@Injectable()
export class ExposuresService {
  constructor(
    private readonly db: Database,
    private readonly facts: SnapshotService,
    private readonly closures: ClosuresService,
    private readonly audit: AuditService,
    private readonly rates: RatesService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * Revokes as `exposed` those of the strings that are secrets of living tokens, in one transaction that has committed
   * when this returns, and then all that they were shown. It takes effect as fast as it can; nobody waits for that. A
   * secret that was dead already ends nothing: whoever finds an old one is not to stop what lives now.
   * @returns how many strings were taken, which tells nothing about them
   * @throws ApiError `rate_limited`
   */
  async revokeExposed(secrets: readonly string[]): Promise<{ accepted: number }> {
    await this.rates.count('revoke-exposed', requestContext.getStore()?.ip ?? '', { max: 20, windowSeconds: 60 });
    await atMultiplesOf(FLOOR_MS, () => this.#revoke(secrets));
    return { accepted: secrets.length };
  }

  async #revoke(secrets: readonly string[]): Promise<void> {
    const wellFormed = [...new Set(secrets)].filter((secret) => parse(secret, this.config.TOKEN_PREFIX).ok);
    const ids = await this.facts.idsByHashes(wellFormed.map(hashSecret));
    if (ids.length === 0) return;
    const begun = await this.db.change<Begun | null>(async (change) => {
      await lockRows(change, 'tokens', ids);
      const living = await change.read<StandingRow>(selectLiving(ids));
      const alive = new Set(living.map(({ id }) => id));
      await this.#tell(
        change,
        ids.filter((id) => !alive.has(id)),
      );
      return living.length > 0 ? this.closures.begin(change, FINDER, living, {}) : null;
    });
    if (!begun) return;
    this.closures.finish(begun, undefined).catch((error: Error) => {
      // Committed already: every renewal of a lease reads it, and jobs has somebody go on with the rest.
      this.logger.warn({ reason: error.message }, 'the end of what exposed tokens were shown was not seen');
    });
  }

  /** Of tokens that were over already: owners and administrators hear of it, and may end what still lives. */
  async #tell(change: Change, ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    const untold = await change.read<UntoldRow>(selectUntold(ids));
    this.audit.recordAll(
      change,
      untold.map(({ rotatedTo, ...token }) => entryOf(FINDER, 'token.reported', token, rotatedTo ? { rotatedTo } : {})),
    );
  }
}

type UntoldRow = Pick<TokenEntity, 'id' | 'name' | 'projectId' | 'rotatedTo'>;
