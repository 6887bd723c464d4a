import { setTimeout as sleep } from 'node:timers/promises';
import type { Effect, EndedCounts, Receipt } from '@latchkey/contracts';
import { type Logger, newId } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import type { QueryResultRow } from 'pg';
import { AuditService } from '../audit/index.js';
import type { NamedActor } from '../authorization/index.js';
import { LOGGER } from '../config.js';
import { type Change, Database, isDatabaseUnavailable, type Statement } from '../database/index.js';
import {
  changeLost,
  type Invalidation,
  InvalidationService,
  ReceiptsService,
  receiptAsSeen,
} from '../invalidation/index.js';
import { lockRows } from '../verification/index.js';
import * as q from './exposure.queries.js';
import { actorColumns, actorOf, mergeReceipts, planRevocation, type Target } from './exposure.rules.js';
import { Queue, within } from './queue.js';

/** Confirmations of one exposure that run at the same time. */
const CONFIRMING_MAX = 8;
/** Attempts to confirm what is unconfirmed before `continueAbandoned` takes over. */
const CONFIRM_TRIES_MAX = 3;
/** Attempts of a step while PostgreSQL is unavailable, and the pause before the second, which doubles each time. */
const STEP_TRIES_MAX = 4;
const STEP_PAUSE_MS = 250;
/** Added to the longest confirmation: an exposure without a step for so long is abandoned. */
const ABANDONED_AFTER_MS = 5_000;
/** How long one call of jobs waits for the work that it starts. */
const CONTINUE_WAIT_MS = 5_000;

/** An exposure whose named tokens are revoked; `finish` revokes the rest. */
export interface StartedExposure {
  id: string;
  invalidations: Invalidation[];
}

/** The effect of revoking tokens in steps. */
export type ClosureEffect = Effect & { ended: EndedCounts };

/**
 * Revokes, step by step, tokens that a filter named, and tokens whose secrets exposed tokens were shown. Exposed tokens are
 * revoked before tokens shown to them are searched, individually named ones in the transaction of the change; from then on
 * none of them is shown another secret and none gets a descendant, so a search after that is complete. Every step is one
 * transaction that stores what remains to be done: any replica can continue.
 */
@Injectable()
export class ClosuresService implements BeforeApplicationShutdown {
  readonly #running = new Map<string, Promise<void>>();
  #stopped = false;

  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly invalidations: InvalidationService,
    private readonly receipts: ReceiptsService,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  beforeApplicationShutdown(): void {
    this.#stopped = true;
  }

  /** Revokes the named tokens, which the change has locked and then read; `finish` revokes those shown to them. */
  start(
    change: Change,
    actor: NamedActor,
    named: readonly q.TokenStateRow[],
    cause: { comment?: string | undefined },
    id = newId(),
  ): StartedExposure {
    const at = new Date();
    const comment = cause.comment ?? null;
    const plan = planRevocation(
      { actor, reason: 'exposed', comment, batch: null, at },
      named.map((row) => ({ row, as: 'named', cover: null })),
    );
    const { tokens } = plan.counts;
    const exposure = { id, ...actorColumns(actor), reason: 'exposed' as const, comment, filter: null, tokens };
    const invalidations = this.invalidations.writeAll(change, plan.newInvalidations);
    change.write(...plan.writes, q.insertExposure(exposure, at), q.insertMembers(id, plan.members));
    this.audit.recordAll(change, plan.entries);
    return { id, invalidations };
  }

  /** The same for all tokens of a person, whom the caller has locked. */
  async startForOwner(
    change: Change,
    actor: NamedActor,
    ownerId: string,
    cause: { comment?: string | undefined },
  ): Promise<StartedExposure> {
    const live = await change.read<q.TokenStateRow>(q.selectLiveOf(ownerId));
    const started = this.start(change, actor, live, cause);
    change.write(q.insertRevokedOf(started.id, ownerId));
    return started;
  }

  /** Revokes the first of the stored tokens that a filter named; `finish` revokes the others. */
  async revokeFirst(id: string): Promise<StartedExposure> {
    const { invalidations } = await this.#step(id);
    return { id, invalidations };
  }

  /**
   * Continues until every token is revoked and confirmed, and waits for that.
   * @param started with the invalidations of `start`; without, to continue an exposure started earlier
   * @param waitMs longest wait; undefined: the longest that a confirmation takes
   */
  async finish(started: StartedExposure, waitMs: number | undefined): Promise<ClosureEffect> {
    const limitMs = waitMs ?? this.invalidations.longestWaitMs;
    // A repeat waits for what is not confirmed yet, so that its response names the pending verifiers.
    const awaited = started.invalidations.length ? started.invalidations : await this.#unconfirmed(started.id);
    const confirmation = awaited.length ? this.#confirm(started.id, awaited, limitMs) : undefined;
    const run = this.run(started.id);
    const [effect] = await Promise.all([confirmation, within(limitMs, run)]);
    const exposure = await this.#read(started.id);
    const { tokens, successors, descendants, shown } = exposure;
    const ended = { tokens, successors, descendants, shown };
    if (!exposure.confirmed_at) return { ended, effective: false, receipt: null, pending: effect?.pending ?? [] };
    const pending = awaited.length ? [] : await this.invalidations.awaitUnownedLeases(limitMs);
    if (pending.length > 0) return { ended, effective: false, receipt: null, pending };
    return { ended, effective: true, receipt: receiptAsSeen(exposure.receipt), pending };
  }

  /** Revokes and confirms the rest, as far as this process can; jobs has another replica continue. */
  run(id: string): Promise<void> {
    const running = this.#running.get(id);
    if (running) return running;
    const started = this.#run(id)
      .catch((error: Error) => {
        this.logger.warn(
          { exposure: id, reason: error.message },
          'revoking tokens step by step failed; jobs retries it',
        );
      })
      .finally(() => this.#running.delete(id));
    this.#running.set(id, started);
    return started;
  }

  /** Continues abandoned exposures, at most `limit`. */
  async continueAbandoned(limit: number): Promise<{ done: number; more: boolean }> {
    const seconds = (this.invalidations.longestWaitMs + ABANDONED_AFTER_MS) / 1_000;
    const taken = await this.db.change((change) => change.read<{ id: string }>([q.CLAIM_ABANDONED, [seconds, limit]]));
    const ids = taken.map(({ id }) => id);
    await within(CONTINUE_WAIT_MS, Promise.all(ids.map((id) => this.run(id))));
    return { done: ids.length, more: ids.length === limit };
  }

  async #run(id: string): Promise<void> {
    const confirmations = new Queue<readonly Invalidation[]>(CONFIRMING_MAX, async (invalidations) => {
      try {
        await this.#confirm(id, invalidations, undefined);
      } catch (error) {
        this.logger.warn({ exposure: id, reason: (error as Error).message }, 'a confirmation failed');
      }
    });
    const confirm = (invalidations: readonly Invalidation[]) => {
      if (invalidations.length > 0) confirmations.put(invalidations);
    };
    // Revoking the next tokens does not wait for the confirmation of earlier ones.
    for (let ended = false; !ended; ) {
      if (this.#stopped) return;
      const step = await this.#stepWithRetries(id);
      ended = step.ended;
      confirm(step.invalidations);
    }
    await confirmations.idle();
    for (let tries = 0; tries < CONFIRM_TRIES_MAX && !this.#stopped; tries++) {
      if (await this.#finished(id)) return;
      confirm(await this.#unconfirmed(id));
      await confirmations.idle();
    }
  }

  /** A step, repeated when PostgreSQL is unavailable; the last confirmations cover one that committed without a reply. */
  async #stepWithRetries(id: string): Promise<{ ended: boolean; invalidations: Invalidation[] }> {
    for (let tries = 1; ; tries++)
      try {
        return await this.#step(id);
      } catch (error) {
        if (!isDatabaseUnavailable(error) || tries >= STEP_TRIES_MAX || this.#stopped) throw error;
        await sleep(STEP_PAUSE_MS * 2 ** (tries - 1), undefined, { ref: false });
      }
  }

  /**
   * One transaction of bounded size: revokes members that a filter named; when there are no more, tokens shown to members;
   * then descendants. The order matters: what a member covers is rejected only once that member is revoked.
   */
  #step(id: string): Promise<{ ended: boolean; invalidations: Invalidation[] }> {
    return this.db.change(async (change) => {
      const [[exposure] = [], named, shown, derived] = (await change.readAll([
        q.lockExposure(id),
        q.selectPending(id, 'itself'),
        q.selectPending(id, 'shown'),
        q.selectPending(id, 'descendants'),
      ])) as [q.ExposureRow[], PendingMember[], PendingMember[], PendingMember[]];
      if (!exposure || exposure.ended_at) return { ended: true, invalidations: [] };
      if (named.length > 0) return this.#revokeNamed(change, exposure, named);
      if (shown.length > 0) return this.#revokeShown(change, exposure, shown);
      return this.#revokeDescendants(
        change,
        exposure,
        derived.map((member) => member.token_id),
      );
    });
  }

  async #revokeNamed(change: Change, exposure: q.ExposureRow, todo: readonly PendingMember[]) {
    const ids = todo.map((member) => member.token_id);
    const named = (await this.#lock(change, ids)).map((row): Target => ({ row, as: 'named', cover: null }));
    const next = exposure.reason === 'exposed' ? 'shown' : 'descendants';
    return this.#revoke(change, exposure, named, {
      store: (members) => q.markMembersRevoked(exposure.id, members, next),
    });
  }

  async #revokeShown(change: Change, exposure: q.ExposureRow, todo: readonly PendingMember[]) {
    const found = await change.read<{ id: string; maker: string }>(q.selectShown(todo));
    const shownTo = new Map(found.map(({ id, maker }) => [id, maker]));
    const rows = await this.#lock(change, [...shownTo.keys()]);
    const relatives = [...new Set(rows.flatMap((row) => [row.id, row.rotated_from ?? [], row.ancestors].flat()))];
    const memberRows = relatives.length
      ? await change.read<{ token_id: string }>(q.selectMembersAmong(exposure.id, relatives))
      : [];
    const members = new Set(memberRows.map((row) => row.token_id));
    const targets = rows
      .filter(({ id }) => !members.has(id))
      .map((row): Target => {
        const isSuccessor = row.rotated_from !== null && members.has(row.rotated_from);
        const cover = row.ancestors.find((ancestor) => members.has(ancestor)) ?? null;
        return { row, as: isSuccessor ? 'successor' : 'shown', shownTo: shownTo.get(row.id)!, cover };
      });
    // A full page can lack tokens shown to its last member.
    const last = found.length === q.STEP_ROWS_MAX ? found.at(-1) : undefined;
    const complete = todo.slice(0, last ? todo.findIndex((member) => member.token_id === last.maker) : todo.length);
    const marks = [
      q.markShownFound(
        exposure.id,
        complete.map((member) => member.token_id),
      ),
      ...(last ? [q.markScanned(exposure.id, last.maker, last.id)] : []),
    ];
    return this.#revoke(change, exposure, targets, { marks });
  }

  async #revokeDescendants(change: Change, exposure: q.ExposureRow, of: readonly string[]) {
    const found = of.length ? await change.read<q.TokenStateRow>(q.selectDescendants(of)) : [];
    const members = new Set(of);
    const targets = found.map((row): Target => {
      return { row, as: 'descendant', cover: row.ancestors.find((ancestor) => members.has(ancestor))! };
    });
    const isAll = found.length < q.STEP_ROWS_MAX;
    const marks = isAll && of.length ? [q.markDescendantsRevoked(exposure.id, of)] : [];
    return this.#revoke(change, exposure, targets, { marks, ended: of.length === 0 });
  }

  #revoke(
    change: Change,
    exposure: q.ExposureRow,
    targets: readonly Target[],
    { store = (members) => q.insertMembers(exposure.id, members), marks = [], ended = false }: Step,
  ): { ended: boolean; invalidations: Invalidation[] } {
    const { reason, comment } = exposure;
    const batch = exposure.filter && exposure.id;
    const plan = planRevocation({ actor: actorOf(exposure), reason, comment, batch, at: new Date() }, targets);
    const invalidations = this.invalidations.writeAll(change, plan.newInvalidations);
    change.write(
      ...plan.writes,
      ...(plan.members.length ? [store(plan.members)] : []),
      ...marks,
      q.recordStep(exposure.id, plan.counts, ended),
    );
    this.audit.recordAll(change, plan.entries);
    return { ended, invalidations };
  }

  async #lock(change: Change, ids: readonly string[]): Promise<q.TokenStateRow[]> {
    if (ids.length === 0) return [];
    await lockRows(change, 'tokens', ids);
    return change.read(q.selectTokenStates(ids));
  }

  /** Publishes the invalidations and waits; a confirmation is stored before this returns. */
  async #confirm(id: string, invalidations: readonly Invalidation[], waitMs: number | undefined): Promise<Effect> {
    const stored = Promise.withResolvers<void>();
    const startedAt = Date.now();
    const effect = await this.invalidations.confirm(invalidations, {
      waitMs,
      store: async (receipt) => {
        try {
          await this.#storeConfirmed(id, invalidations, receipt, startedAt);
        } finally {
          stored.resolve();
        }
      },
    });
    if (effect.effective) await stored.promise;
    return effect;
  }

  /** Stores a confirmation with the tokens and with the exposure, which it can finish. */
  async #storeConfirmed(
    id: string,
    invalidations: readonly Invalidation[],
    receipt: Receipt,
    startedAt: number,
  ): Promise<void> {
    const changes = await this.receipts.changes(invalidations);
    const ids = invalidations.map((invalidation) => invalidation.id);
    return this.db.change(async (change) => {
      const [exposure] = await change.read<q.ExposureRow>(q.lockExposure(id));
      if (!exposure) return;
      const sinceMs = Math.max(0, startedAt - exposure.created_at.getTime());
      const sum = mergeReceipts(exposure.receipt, receipt, sinceMs);
      // The receipt of the first confirmation is signed; merged ones are not.
      const merged = exposure.receipt ? sum : this.receipts.signed(sum, invalidations, changes);
      change.write(q.storeTokenReceipts(id, ids, receipt), q.markConfirmed(id, ids));
      change.write(q.storeReceipt(id, merged), q.finish(id));
    });
  }

  /** Invalidations of unconfirmed members; lost ones are written again. */
  #unconfirmed(id: string): Promise<Invalidation[]> {
    return this.db.change(async (change) => {
      const [[exposure], left] = (await change.readAll([q.lockExposure(id), q.selectUnconfirmed(id)])) as [
        q.ExposureRow[],
        (Omit<Invalidation, 'id'> & { id: string | null; token_id: string })[],
      ];
      if (!exposure || left.length === 0) return [];
      const known = left.flatMap(({ token_id, id, ...row }) => (id === null ? [] : [{ ...row, id }]));
      const lost = left.filter((row) => row.id === null).map((row) => ({ id: newId(), subject: row.token_id }));
      const newInvalidations = lost.map(({ id, subject }) => ({ id, kind: 'token' as const, subject, cut: true }));
      const rewritten = this.invalidations.writeAll(change, newInvalidations);
      if (lost.length > 0) change.write(q.moveInvalidations(id, lost));
      return [...known, ...rewritten];
    });
  }

  async #finished(id: string): Promise<boolean> {
    const [, [exposure]] = (await this.db.change((change) => change.readAll([q.finish(id), q.selectExposure(id)]))) as [
      unknown,
      q.ExposureRow[],
    ];
    return exposure === undefined || exposure.confirmed_at !== null;
  }

  async #read(id: string): Promise<q.ExposureRow> {
    const [text, values] = q.selectExposure(id);
    // Missing although this request started it: the database was restored to an earlier state.
    const [row] = await this.db.prepared<q.ExposureRow & QueryResultRow>('exposure', text, values ?? []);
    if (!row) throw changeLost();
    return row;
  }
}

/** What a step writes besides the revocations. */
interface Step {
  store?: (members: readonly q.NewMember[]) => Statement;
  marks?: readonly Statement[];
  /** No token is left to revoke. */
  ended?: boolean;
}

/** A member that is to be revoked, or whose shown tokens or descendants are to be searched. */
interface PendingMember {
  token_id: string;
  scanned_to: string | null;
}
