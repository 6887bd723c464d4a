import type { Effect, RevokeAllTokensBody } from '@latchkey/contracts';
import { type Logger, newId } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import type { Actor, NamedActor } from '../authorization/index.js';
import { LOGGER } from '../config.js';
import { type Change, Database } from '../database/index.js';
import { forbidden } from '../http/index.js';
import { type Invalidation, InvalidationService, ReceiptsService } from '../invalidation/index.js';
import { LocksService, mustBeRecent, selectRecentSignIn } from '../verification/index.js';
import { actorColumns } from './exposure.rules.js';
import { within } from './queue.js';
import { CLAIM_UNMARKED, MARK_NEXT, raiseGeneration, storeReceipt, type UnmarkedRow } from './revoke-all.queries.js';

/** How long one call of jobs waits for the work that it starts. */
const CONTINUE_WAIT_MS = 5_000;

/**
 * Revokes every token, however many, in one small transaction: it raises the current generation, and every check rejects
 * tokens of an earlier one. Their rows are marked afterwards, step by step.
 */
@Injectable()
export class RevokeAllService implements BeforeApplicationShutdown {
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
   * Revokes all tokens, for administrators who have just signed in. A token issued or rotated meanwhile by a token is
   * revoked too: it has the generation that was current when its creator was last seen valid.
   * @throws ApiError `forbidden`, or `reauthentication_required`
   */
  async revokeAll(actor: Actor, { reason, comment }: RevokeAllTokensBody, waitMs: number | undefined): Promise<Effect> {
    if (actor.type !== 'user') throw forbidden('Only administrators who are signed in may revoke everything.');
    const written = await this.db.change(async (change) => {
      const { now, read } = await this.locks.lock(change, actor, {}, selectRecentSignIn(actor));
      if (!now.rights.everywhere) throw forbidden('Only administrators who are signed in may revoke everything.');
      mustBeRecent(read[0]?.[0]);
      return [this.write(change, now, { reason, comment })];
    });
    const [{ id }] = written as [Invalidation];
    this.logger.warn({ reason }, 'all tokens have been revoked: no token issued before this is accepted any more');
    return this.invalidations.confirm(written, {
      waitMs,
      store: async (receipt) => {
        await this.receipts.store(receipt, {}, storeReceipt(id, receipt));
        void this.mark();
      },
    });
  }

  /** Revokes all tokens in the transaction of a change, which the caller confirms. */
  write(change: Change, actor: NamedActor, cause: Omit<RevokeAllTokensBody, 'confirm'>): Invalidation {
    const { reason, comment } = cause;
    const id = newId();
    change.write(raiseGeneration(actorColumns(actor), { reason, comment }, new Date(), id));
    const details = { reason, ...(comment !== undefined && { comment }) };
    this.audit.record(change, { actor, action: 'tokens.revoked_all', details });
    return this.invalidations.write(change, { id, kind: 'everything', subject: '', cut: true });
  }

  /** Marks the rows of the revoked tokens, as far as this process can; jobs has another replica continue. */
  mark(): Promise<void> {
    this.#marking ??= this.#mark()
      .catch((error: Error) =>
        this.logger.warn({ reason: error.message }, 'marking the rows of revoked tokens failed; jobs retries it'),
      )
      .finally(() => {
        this.#marking = undefined;
      });
    return this.#marking;
  }

  /** Continues marking where no replica does. */
  continueMarking(): Promise<void> {
    return within(CONTINUE_WAIT_MS, this.mark());
  }

  async #mark(): Promise<void> {
    while (!this.#stopped) if (!(await this.#step())) return;
  }

  /** @returns whether more can be marked now */
  #step(): Promise<boolean> {
    return this.db.change(async (change) => {
      const [due] = await change.read<UnmarkedRow>([CLAIM_UNMARKED]);
      if (!due) return false;
      change.write([MARK_NEXT, [due.generation, due.marked_to]]);
      return true;
    });
  }
}
