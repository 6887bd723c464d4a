import type { Logger } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { ScopesService } from '../authorization/index.js';
import { LOGGER } from '../config.js';
import { Database } from '../database/index.js';
import { type Invalidation, InvalidationService } from '../invalidation/index.js';

/** Tells verifiers when the scopes declared are others than at the last start: what they remember rests on the old ones. */
@Injectable()
export class DeclarationsService {
  constructor(
    private readonly db: Database,
    private readonly scopes: ScopesService,
    private readonly invalidations: InvalidationService,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * Compares this replica's declarations with those of the last start, of any replica; from now on all go by these.
   * Call it before the doors open.
   * @returns whether verifiers were told to forget everything
   */
  async announceChange(): Promise<boolean> {
    const { digest, text } = this.scopes.own;
    const written = await this.db.change(async (change): Promise<Invalidation | null> => {
      // The empty row stands for "none yet", so that there is a row to lock at the first start too.
      change.write([`INSERT INTO scope_declarations (digest) VALUES ('') ON CONFLICT DO NOTHING`]);
      const [last] = await change.read<{ digest: Buffer }>(['SELECT digest FROM scope_declarations FOR UPDATE']);
      change.write(['UPDATE scope_declarations SET digest = $1, declarations = $2', [digest, text]]);
      if (last?.digest.equals(digest)) return null;
      return this.invalidations.write(change, { kind: 'everything', subject: '', cut: false });
    });
    if (!written) return false;
    this.logger.info('the scopes declared have changed: verifiers forget what they remember');
    // Nobody waits for it: until a verifier has confirmed, it answers by the old declarations, for a lease at most.
    await this.invalidations.confirm([written], { waitMs: 0, keep: async () => undefined });
    return true;
  }
}
