import { createHmac } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { PeppersService } from './peppers.service.js';

/** What PostgreSQL stores of a secret: HMAC-SHA-256, under a pepper that is not in the database, of its SHA-256. */
@Injectable()
export class SecretHasher {
  readonly #peppers: readonly string[];

  constructor(
    private readonly peppers: PeppersService,
    @Inject(CONFIG) config: Pick<TokenServiceConfig, 'TOKEN_PEPPERS'>,
  ) {
    this.#peppers = config.TOKEN_PEPPERS;
  }

  /** The columns of a new token. @param sha256 base64url */
  columnsOf(sha256: string): { hash: Buffer; pepperId: number } {
    return { hash: this.hashes(sha256)[0]!, pepperId: this.peppers.currentId };
  }

  /** What can be stored: one for each pepper that still verifies, the current one first. @param sha256 base64url */
  hashes(sha256: string): Buffer[] {
    const bytes = Buffer.from(sha256, 'base64url');
    return this.#peppers.map((pepper) => createHmac('sha256', pepper).update(bytes).digest());
  }
}
