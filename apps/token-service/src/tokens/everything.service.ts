import type { Effect, RevokeAllTokensBody } from '@latchkey/contracts';
import { type Logger, newId } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import type { Actor } from '../authorization/index.js';
import { LOGGER } from '../config.js';
import { Database } from '../database/index.js';
import { forbidden } from '../http/index.js';
import { InvalidationService, ReceiptsService } from '../invalidation/index.js';
import { LocksService, mustBeRecent, selectRecentSignIn } from '../verification/index.js';
import { keepReceipt, MARK_NEXT, raiseGeneration, TAKE_UNMARKED, type UnmarkedRow } from './everything.queries.js';
import { makerColumns } from './exposure.rules.js';
import { within } from './queue.js';

/** How long one call of jobs waits for what it has set going. */
const CONTINUE_WAIT_MS = 5_000;

/**
 * Revokes every token there is, however many, in one small transaction: the current generation is raised, and whatever
 * lets a token in refuses those of an earlier one. Their rows are marked afterwards, step by step.
 */
@Injectable()
export class EverythingService implements BeforeApplicationShutdown {
  #marking: Promise<void> | undefined;
  #stopped = false;

  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly audit: AuditService,
    private readonly invalidations: InvalidationService,
    private readonly receipts: ReceiptsService,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  beforeApplicationShutdown(): void {
    this.#stopped = true;
  }

  /**
   * Revokes everything, for administrators who have just signed in. A token that is made meanwhile by a token, or in the
   * place of one, is dead with it: it bears the generation in which its maker was seen to live.
   * @throws ApiError `forbidden`, or `reauthentication_required`
   */
  async revokeAll(actor: Actor, { reason, comment }: RevokeAllTokensBody, waitMs: number | undefined): Promise<Effect> {
    if (actor.type !== 'user') throw forbidden('Only administrators who are signed in may revoke everything.');
    const id = newId();
    const written = await this.db.change(async (change) => {
      const { now, read } = await this.locks.lock(change, actor, {}, selectRecentSignIn(actor));
      if (!now.rights.everywhere) throw forbidden('Only administrators who are signed in may revoke everything.');
      mustBeRecent(read[0]?.[0]);
      const invalidation = this.invalidations.write(change, { id, kind: 'everything', subject: '', cut: true });
      const details = { reason, ...(comment !== undefined && { comment }) };
      change.write(raiseGeneration(makerColumns(now), { reason, comment }, new Date(), id));
      this.audit.record(change, { actor: now, action: 'tokens.revoked_all', details });
      return [invalidation];
    });
    this.logger.warn({ reason }, 'everything has been revoked: no token issued before this is accepted any more');
    return this.invalidations.confirm(written, {
      waitMs,
      keep: async (receipt) => {
        await this.receipts.keep(receipt, {}, keepReceipt(id, receipt));
        void this.mark();
      },
    });
  }

  /** Marks the rows of tokens that ended with everything, as far as this process can; jobs has somebody go on. */
  mark(): Promise<void> {
    this.#marking ??= this.#mark()
      .catch((error: Error) =>
        this.logger.warn({ reason: error.message }, 'marking the tokens that ended with everything: to be continued'),
      )
      .finally(() => {
        this.#marking = undefined;
      });
    return this.#marking;
  }

  /** Goes on with marking where nobody is at it. */
  continueMarking(): Promise<void> {
    return within(CONTINUE_WAIT_MS, this.mark());
  }

  async #mark(): Promise<void> {
    while (!this.#stopped) if (!(await this.#step())) return;
  }

  /** @returns whether there may be more to do, here and now */
  #step(): Promise<boolean> {
    return this.db.change(async (change) => {
      const [due] = await change.read<UnmarkedRow>([TAKE_UNMARKED]);
      if (!due) return false;
      change.write([MARK_NEXT, [due.generation, due.marked_to]]);
      return true;
    });
  }
}
