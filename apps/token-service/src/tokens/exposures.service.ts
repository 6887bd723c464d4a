import type { Logger } from '@latchkey/runtime';
import { hashSecret, parse } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import type { SystemActor } from '../access/index.js';
import { lockRows } from '../access/locks.service.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database, rows } from '../database/database.service.js';
import { atMultiplesOf, requestContext } from '../http/index.js';
import { RatesService } from '../http/rates.service.js';
import { FactsService } from './facts.service.js';
import { RevocationsService } from './revocations.service.js';

const FINDER: SystemActor = { type: 'system', name: 'revoke-exposed' };

/** Answers come at whole multiples of this, so that their time tells nothing about which secrets were real. */
const FLOOR_MS = 500;

/** Secrets that turned up where they should not be: whoever holds them may end them. */
@Injectable()
export class ExposuresService {
  constructor(
    private readonly db: Database,
    private readonly facts: FactsService,
    private readonly revocations: RevocationsService,
    private readonly rates: RatesService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * Revokes as `exposed` those of the strings that are secrets of tokens, with their successors and all made with them,
   * in one transaction that has committed when this returns. It takes effect as fast as it can; nobody waits for that.
   * @returns how many strings were taken, which tells nothing about them
   * @throws Refusal `rate_limited`
   */
  async revokeExposed(secrets: readonly string[]): Promise<{ accepted: number }> {
    await this.rates.count('revoke-exposed', requestContext.getStore()?.ip ?? '', { max: 20, windowSeconds: 60 });
    await atMultiplesOf(FLOOR_MS, () => this.#revoke(secrets));
    return { accepted: secrets.length };
  }

  async #revoke(secrets: readonly string[]): Promise<void> {
    const wellFormed = [...new Set(secrets)].filter((secret) => parse(secret, this.config.TOKEN_PREFIX).ok);
    const hashes = wellFormed.flatMap((secret) => this.facts.storedHashes(hashSecret(secret)));
    const ended = await this.db.transaction(async (tx) => {
      const found = await rows<{ id: string }>(tx, 'SELECT id FROM tokens WHERE hash = ANY ($1)', [hashes]);
      const ids = found.map(({ id }) => id);
      if (ids.length === 0) return { invalidations: [], tokenIds: [] };
      await lockRows(tx, 'tokens', ids);
      return this.revocations.revoke(tx, FINDER, ids, { reason: 'exposed' });
    });
    this.revocations.settle(ended.invalidations, ended.tokenIds, undefined).catch((error: Error) => {
      // Committed already: every renewal of a lease reads it, so only the receipt is missing.
      this.logger.warn({ reason: error.message }, 'the confirmation of exposed tokens was not seen to its end');
    });
  }
}
