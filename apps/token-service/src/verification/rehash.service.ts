import type { Logger } from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { LOGGER } from '../config.js';
import { Database } from '../database/index.js';
import { REHASH } from './peppers.queries.js';
import { PeppersService } from './peppers.service.js';
import { SecretHasher } from './secret-hasher.js';

/** Most tokens that wait to be moved; further ones are moved at their next look-up. */
const WAITING_MAX = 1_000;
/** Most tokens in one statement. */
const BATCH_MAX = 100;
const BATCH_EVERY_MS = 1_000;

/**
 * Moves tokens that are found under a retired pepper to the current one, in the background: only a look-up knows what to
 * hash. Their ids and rights stay the same, and verifiers know them by another hash, so nothing is invalidated.
 */
@Injectable()
export class RehashService implements OnApplicationShutdown {
  /** SHA-256 of their secrets, base64url, by id. */
  readonly #waiting = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly db: Database,
    private readonly peppers: PeppersService,
    private readonly hasher: SecretHasher,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** Called for each token found; returns at once. @param pepperId of its row */
  found(id: string, pepperId: number | null, sha256: string): void {
    if (pepperId === this.peppers.currentId || !this.peppers.mayMove || this.#waiting.size >= WAITING_MAX) return;
    this.#waiting.set(id, sha256);
    this.#timer ??= setTimeout(() => void this.#moveSome(), BATCH_EVERY_MS).unref();
  }

  onApplicationShutdown(): void {
    clearTimeout(this.#timer);
    this.#waiting.clear();
  }

  async #moveSome(): Promise<void> {
    const batch = [...this.#waiting].slice(0, BATCH_MAX);
    for (const [id] of batch) this.#waiting.delete(id);
    // Under which pepper a row without an id was written is not known.
    const moves = batch.flatMap(([id, sha256]) => {
      const hashes = this.hasher.hashes(sha256);
      return hashes.map((old) => ({ id, old, current: hashes[0]! }));
    });
    const columns = [moves.map(({ id }) => id), moves.map(({ old }) => old), moves.map(({ current }) => current)];
    try {
      if (this.peppers.mayMove) await this.db.prepared('rehash', REHASH, [...columns, this.peppers.currentId]);
    } catch (error) {
      this.logger.warn(
        { reason: (error as Error).message },
        'moving tokens to the current pepper failed; their next look-up retries it',
      );
    }
    this.#timer = this.#waiting.size > 0 ? setTimeout(() => void this.#moveSome(), BATCH_EVERY_MS).unref() : undefined;
  }
}
