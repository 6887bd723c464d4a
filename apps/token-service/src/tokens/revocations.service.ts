import type { Effect, EndedCounts, Receipt, RevocationReason } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Injectable } from '@nestjs/common';
import type { QueryResultRow } from 'pg';
import { AuditService } from '../audit/index.js';
import { type Actor, SYSTEM, type SystemActor } from '../authorization/index.js';
import { type Change, Database } from '../database/index.js';
import {
  type Invalidation,
  InvalidationService,
  IS_SETTLED,
  NOTHING_NARROWED,
  ReceiptsService,
  receiptAsSeen,
} from '../invalidation/index.js';
import {
  type EndedRow,
  markRevoked,
  moveInvalidations,
  SELECT_OVERLAP_DUE,
  selectEnding,
  selectOwn,
} from './token.queries.js';
import { entryOf } from './token.repository.js';

/** Why, for the record. */
export interface Cause {
  reason: RevocationReason;
  comment?: string | undefined;
}

/** A cause that reaches the tokens and their descendants, no further. */
type OrdinaryCause = Cause & { reason: Exclude<RevocationReason, 'exposed'> };

/** What a change ended: to be settled once it is committed. */
export interface Ended {
  invalidations: Invalidation[];
  tokenIds: string[];
  counts: EndedCounts;
}

const NOTHING_ENDED: Ended = {
  invalidations: [],
  tokenIds: [],
  counts: { tokens: 0, successors: 0, descendants: 0, shown: 0 },
};

/** Ends tokens: marks them, tells the audit log and the verifiers, and waits until it is so everywhere. */
@Injectable()
export class RevocationsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly invalidations: InvalidationService,
    private readonly receipts: ReceiptsService,
  ) {}

  /**
   * Revokes the tokens named with all that was made with them. What is revoked already stays as it is. The caller has
   * locked the tokens named. What is `exposed` goes through `ClosuresService` instead.
   */
  async revoke(
    change: Change,
    actor: Actor | SystemActor,
    ids: readonly string[],
    cause: OrdinaryCause,
  ): Promise<Ended> {
    return this.end(change, actor, await change.readAll(selectEnding(ids)), cause);
  }

  /** The same for tokens as `selectEnding` found them, with those made with them. */
  end(change: Change, actor: Actor | SystemActor, found: readonly QueryResultRow[][], cause: OrdinaryCause): Ended {
    const touched = [...new Map((found.flat() as EndedRow[]).map((row) => [row.id, row])).values()];
    const ended = touched.filter(({ revoked }) => !revoked);
    if (ended.length === 0) return NOTHING_ENDED;
    // Of one named that was revoked before, nobody may have waited until that was effective: it is told anew with these.
    const again = touched.filter(({ revoked }) => revoked);
    const { newInvalidations, topmostOf, idFor } = newInvalidationsOf(touched);
    const idsOf = (rows: readonly EndedRow[]) => rows.map(({ id }) => id);
    const invalidations = this.invalidations.writeAll(change, newInvalidations);
    change.write(markRevoked(idsOf(ended), ended.map(idFor), actor, cause));
    if (again.length > 0) change.write(moveInvalidations(idsOf(again), again.map(idFor)));
    const details = { reason: cause.reason, ...(cause.comment && { comment: cause.comment }) };
    this.audit.recordAll(
      change,
      ended.map((row) => entryOf(actor, 'token.revoked', row, details)),
    );
    const descendants = ended.filter((row) => topmostOf(row) !== row.id).length;
    const counts = { ...NOTHING_ENDED.counts, tokens: ended.length, descendants };
    return { invalidations, tokenIds: idsOf(touched), counts };
  }

  /**
   * Revokes every token of a person. The caller has locked the person, so that none is issued meanwhile. Of those that
   * were revoked before and never confirmed, verifiers are told anew.
   */
  async revokeAllOf(change: Change, actor: Actor, userId: string, cause: OrdinaryCause): Promise<Ended> {
    const own = await change.read<{ id: string; revoked: boolean }>(selectOwn(userId));
    const those = (wanted: boolean) => own.flatMap(({ id, revoked }) => (revoked === wanted ? [id] : []));
    const ended = await this.revoke(change, actor, those(false), cause);
    const repeated = this.#tellAgain(change, those(true));
    return {
      invalidations: [...ended.invalidations, ...repeated.invalidations],
      tokenIds: [...ended.tokenIds, ...repeated.tokenIds],
      counts: ended.counts,
    };
  }

  /**
   * Waits, after the commit, until no verifier answers from before it. The receipt is kept with the tokens when it comes,
   * be it after the answer.
   * @param waitMs longest wait; undefined: as long as it takes
   */
  async settle(
    invalidations: readonly Invalidation[],
    tokenIds: readonly string[],
    waitMs: number | undefined,
  ): Promise<Effect> {
    if (invalidations.length === 0) return NOTHING_NARROWED;
    return this.invalidations.confirm(invalidations, {
      waitMs,
      keep: (receipt) => this.receipts.keepWithTokens(receipt, invalidations, tokenIds),
    });
  }

  /**
   * For a change that found everything as it is to be: effective once nobody remembers what another history told them,
   * which a start of PostgreSQL may have ended.
   * @param waitMs longest wait; undefined: as long as it takes
   */
  async nothingLeft(waitMs: number | undefined): Promise<Effect> {
    const pending = await this.invalidations.settled(waitMs ?? this.invalidations.longestWaitMs);
    return { effective: pending.length === 0, receipt: null, pending };
  }

  /**
   * Waits, after the commit, until no verifier accepts a token that was to be revoked: for what that ended, or where it had
   * ended before, for that.
   * @param ended what `revoke` or `end` answered for this token
   * @param waitMs longest wait; undefined: as long as it takes
   */
  confirmRevoked(tokenId: string, ended: Ended, waitMs: number | undefined): Promise<Effect> {
    if (ended.invalidations.length === 0) return this.#confirmAgain(tokenId, waitMs);
    return this.settle(ended.invalidations, ended.tokenIds, waitMs);
  }

  /**
   * For a token that was revoked before: the receipt as it stands, or the wait once more. Where neither the receipt nor
   * the invalidation is known any more, verifiers are told anew: an invalidation that was pruned proves nothing. Nor does
   * a receipt while verifiers may remember what another history told them, which a start of PostgreSQL may have ended.
   */
  async #confirmAgain(tokenId: string, waitMs: number | undefined): Promise<Effect> {
    const repeated = await this.db.change(async (change) => {
      const [row] = await change.read<{ invalidation: Invalidation | null; receipt: Receipt | null }>([
        `SELECT CASE WHEN ${IS_SETTLED} THEN t.receipt END AS receipt, CASE WHEN i.id IS NOT NULL THEN json_build_object(
           'id', i.id, 'kind', i.kind, 'subject', i.subject, 'cut', i.cut, 'xid', i.xid::text) END AS invalidation
         FROM tokens t LEFT JOIN invalidations i ON i.id = t.invalidation_id WHERE t.id = $1 FOR NO KEY UPDATE OF t`,
        [tokenId],
      ]);
      if (row?.receipt) return row.receipt;
      if (row?.invalidation) return { ...NOTHING_ENDED, invalidations: [row.invalidation], tokenIds: [tokenId] };
      return this.#tellAgain(change, [tokenId]);
    });
    if ('invalidations' in repeated) return this.settle(repeated.invalidations, repeated.tokenIds, waitMs);
    return { effective: true, receipt: receiptAsSeen(repeated), pending: [] };
  }

  /** New invalidations of revoked tokens, where it is not known that no verifier remembers otherwise. */
  #tellAgain(change: Change, tokenIds: readonly string[]): Ended {
    if (tokenIds.length === 0) return NOTHING_ENDED;
    const newInvalidations = tokenIds.map((id) => ({ id: newId(), kind: 'token' as const, subject: id, cut: true }));
    const invalidations = this.invalidations.writeAll(change, newInvalidations);
    change.write(
      moveInvalidations(
        tokenIds,
        newInvalidations.map(({ id }) => id),
      ),
    );
    return { ...NOTHING_ENDED, invalidations, tokenIds: [...tokenIds] };
  }

  /** Revokes as `superseded` the rotated tokens whose overlap has ended, at most `limit`. */
  async endOverlaps(limit: number): Promise<{ done: number; more: boolean }> {
    const { done, ended } = await this.db.change(async (change) => {
      const due = await change.read<{ id: string }>([SELECT_OVERLAP_DUE, [limit]]);
      const ids = due.map(({ id }) => id);
      const ended = ids.length ? await this.revoke(change, SYSTEM, ids, { reason: 'superseded' }) : NOTHING_ENDED;
      return { done: ids.length, ended };
    });
    // They stopped by themselves at the end of the overlap: nobody waits for the confirmation.
    await this.settle(ended.invalidations, ended.tokenIds, 0);
    return { done, more: done === limit };
  }
}

/** One invalidation for each token that was not made with another of these: it covers all made with it. */
function newInvalidationsOf(touched: readonly EndedRow[]) {
  const all = new Set(touched.map(({ id }) => id));
  // Ancestors are listed nearest first, so the last of these is the topmost.
  const topmostOf = ({ id, ancestors }: EndedRow) => ancestors.findLast((above) => all.has(above)) ?? id;
  const ids = new Map(touched.map((row) => [topmostOf(row), newId()]));
  return {
    newInvalidations: [...ids].map(([subject, id]) => ({ id, kind: 'token' as const, subject, cut: true })),
    topmostOf,
    idFor: (row: EndedRow) => ids.get(topmostOf(row)),
  };
}
