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
  IS_RECONFIRMED,
  NO_INVALIDATION,
  ReceiptsService,
  receiptAsSeen,
} from '../invalidation/index.js';
import {
  markRevoked,
  moveInvalidations,
  SELECT_OVERLAP_DUE,
  selectOwn,
  selectTargets,
  type TargetRow,
} from './token.queries.js';
import { entryOf } from './token.repository.js';

export interface Cause {
  reason: RevocationReason;
  comment?: string | undefined;
}

/** A cause that affects the tokens and their descendants only. */
type OrdinaryCause = Cause & { reason: Exclude<RevocationReason, 'exposed'> };

/** What a change revoked: to be confirmed once it is committed. */
export interface Revocation {
  invalidations: Invalidation[];
  tokenIds: string[];
  counts: EndedCounts;
}

const NO_REVOCATION: Revocation = {
  invalidations: [],
  tokenIds: [],
  counts: { tokens: 0, successors: 0, descendants: 0, shown: 0 },
};

/** Revokes tokens: writes the rows, their audit events and invalidations, and waits for confirmation. */
@Injectable()
export class RevocationsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly invalidations: InvalidationService,
    private readonly receipts: ReceiptsService,
  ) {}

  /**
   * Revokes the given tokens, which the caller has locked, and their descendants. Tokens revoked already stay as they
   * are. `ClosuresService` revokes `exposed` tokens instead.
   */
  async revoke(
    change: Change,
    actor: Actor | SystemActor,
    ids: readonly string[],
    cause: OrdinaryCause,
  ): Promise<Revocation> {
    return this.revokeTargets(change, actor, await change.readAll(selectTargets(ids)), cause);
  }

  /** The same for the rows that `selectTargets` returned. */
  revokeTargets(
    change: Change,
    actor: Actor | SystemActor,
    found: readonly QueryResultRow[][],
    cause: OrdinaryCause,
  ): Revocation {
    const targets = [...new Map((found.flat() as TargetRow[]).map((row) => [row.id, row])).values()];
    const revoked = targets.filter((row) => !row.revoked);
    if (revoked.length === 0) return NO_REVOCATION;
    // An earlier revocation of a given token can be unconfirmed: it gets a new invalidation too.
    const again = targets.filter((row) => row.revoked);
    const { newInvalidations, topmostOf, idFor } = newInvalidationsOf(targets);
    const idsOf = (rows: readonly TargetRow[]) => rows.map(({ id }) => id);
    const invalidations = this.invalidations.writeAll(change, newInvalidations);
    change.write(markRevoked(idsOf(revoked), revoked.map(idFor), actor, cause));
    if (again.length > 0) change.write(moveInvalidations(idsOf(again), again.map(idFor)));
    const details = { reason: cause.reason, ...(cause.comment && { comment: cause.comment }) };
    this.audit.recordAll(
      change,
      revoked.map((row) => entryOf(actor, 'token.revoked', row, details)),
    );
    const descendants = revoked.filter((row) => topmostOf(row) !== row.id).length;
    const counts = { ...NO_REVOCATION.counts, tokens: revoked.length, descendants };
    return { invalidations, tokenIds: idsOf(targets), counts };
  }

  /**
   * Revokes every token of a person. The caller has locked the person, so that none is issued meanwhile. Tokens revoked
   * before and never confirmed get new invalidations.
   */
  async revokeAllOf(change: Change, actor: Actor, userId: string, cause: OrdinaryCause): Promise<Revocation> {
    const own = await change.read<{ id: string; revoked: boolean }>(selectOwn(userId));
    const ids = (wanted: boolean) => own.flatMap(({ id, revoked }) => (revoked === wanted ? [id] : []));
    const ended = await this.revoke(change, actor, ids(false), cause);
    const repeated = this.#reinvalidate(change, ids(true));
    return {
      invalidations: [...ended.invalidations, ...repeated.invalidations],
      tokenIds: [...ended.tokenIds, ...repeated.tokenIds],
      counts: ended.counts,
    };
  }

  /**
   * Waits, after the commit, until every verifier has applied the change. The receipt is stored with the tokens once it is
   * complete, possibly after the response.
   * @param waitMs longest wait; undefined: as long as it takes
   */
  async awaitConfirmation(
    invalidations: readonly Invalidation[],
    tokenIds: readonly string[],
    waitMs: number | undefined,
  ): Promise<Effect> {
    if (invalidations.length === 0) return NO_INVALIDATION;
    return this.invalidations.confirm(invalidations, {
      waitMs,
      store: (receipt) => this.receipts.storeWithTokens(receipt, invalidations, tokenIds),
    });
  }

  /**
   * For a request that had nothing to change: effective once no verifier remembers state of an earlier history, which a
   * start of PostgreSQL can have ended.
   * @param waitMs longest wait; undefined: as long as it takes
   */
  async confirmUnchanged(waitMs: number | undefined): Promise<Effect> {
    const pending = await this.invalidations.awaitUnownedLeases(waitMs ?? this.invalidations.longestWaitMs);
    return { effective: pending.length === 0, receipt: null, pending };
  }

  /**
   * Waits, after the commit, until no verifier accepts the token, whether this request or an earlier one revoked it.
   * @param revocation what `revoke` or `revokeTargets` returned for this token
   * @param waitMs longest wait; undefined: as long as it takes
   */
  confirmRevoked(tokenId: string, revocation: Revocation, waitMs: number | undefined): Promise<Effect> {
    if (revocation.invalidations.length === 0) return this.#reconfirm(tokenId, waitMs);
    return this.awaitConfirmation(revocation.invalidations, revocation.tokenIds, waitMs);
  }

  /**
   * For a token that was revoked before: returns its receipt, or waits again. Where neither the receipt nor the
   * invalidation is known any more, writes a new invalidation: a pruned one proves nothing. Nor does a receipt while
   * verifiers can remember state of an earlier history, which a start of PostgreSQL can have ended.
   */
  async #reconfirm(tokenId: string, waitMs: number | undefined): Promise<Effect> {
    const repeated = await this.db.change(async (change) => {
      const [row] = await change.read<{ invalidation: Invalidation | null; receipt: Receipt | null }>([
        `SELECT CASE WHEN ${IS_RECONFIRMED} THEN t.receipt END AS receipt, CASE WHEN i.id IS NOT NULL THEN json_build_object(
           'id', i.id, 'kind', i.kind, 'subject', i.subject, 'cut', i.cut, 'xid', i.xid::text) END AS invalidation
         FROM tokens t LEFT JOIN invalidations i ON i.id = t.invalidation_id WHERE t.id = $1 FOR NO KEY UPDATE OF t`,
        [tokenId],
      ]);
      if (row?.receipt) return row.receipt;
      if (row?.invalidation) return { ...NO_REVOCATION, invalidations: [row.invalidation], tokenIds: [tokenId] };
      return this.#reinvalidate(change, [tokenId]);
    });
    if ('invalidations' in repeated) return this.awaitConfirmation(repeated.invalidations, repeated.tokenIds, waitMs);
    return { effective: true, receipt: receiptAsSeen(repeated), pending: [] };
  }

  /** New invalidations of revoked tokens that verifiers can still accept. */
  #reinvalidate(change: Change, tokenIds: readonly string[]): Revocation {
    if (tokenIds.length === 0) return NO_REVOCATION;
    const newInvalidations = tokenIds.map((id) => ({ id: newId(), kind: 'token' as const, subject: id, cut: true }));
    const invalidations = this.invalidations.writeAll(change, newInvalidations);
    change.write(
      moveInvalidations(
        tokenIds,
        newInvalidations.map(({ id }) => id),
      ),
    );
    return { ...NO_REVOCATION, invalidations, tokenIds: [...tokenIds] };
  }

  /** Revokes as `superseded` the rotated tokens whose overlap has ended, at most `limit`. */
  async endOverlaps(limit: number): Promise<{ done: number; more: boolean }> {
    const { done, revocation } = await this.db.change(async (change) => {
      const due = await change.read<{ id: string }>([SELECT_OVERLAP_DUE, [limit]]);
      const ids = due.map(({ id }) => id);
      const revocation = ids.length ? await this.revoke(change, SYSTEM, ids, { reason: 'superseded' }) : NO_REVOCATION;
      return { done: ids.length, revocation };
    });
    // They expired by themselves at the end of the overlap: no caller waits for the confirmation.
    await this.awaitConfirmation(revocation.invalidations, revocation.tokenIds, 0);
    return { done, more: done === limit };
  }
}

/** One invalidation for each target that derives from no other target: it covers its descendants. */
function newInvalidationsOf(targets: readonly TargetRow[]) {
  const all = new Set(targets.map(({ id }) => id));
  // Ancestors are listed nearest first, so the last match is the topmost.
  const topmostOf = ({ id, ancestors }: TargetRow) => ancestors.findLast((ancestor) => all.has(ancestor)) ?? id;
  const ids = new Map(targets.map((row) => [topmostOf(row), newId()]));
  return {
    newInvalidations: [...ids].map(([subject, id]) => ({ id, kind: 'token' as const, subject, cut: true })),
    topmostOf,
    idFor: (row: TargetRow) => ids.get(topmostOf(row)),
  };
}
