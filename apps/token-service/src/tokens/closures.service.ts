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
  forgotten,
  type Invalidation,
  InvalidationService,
  ReceiptsService,
  receiptAsSeen,
} from '../invalidation/index.js';
import { lockRows } from '../verification/index.js';
import * as q from './exposure.queries.js';
import { actorOf, type Doomed, endingOf, makerColumns, mergeReceipts } from './exposure.rules.js';
import { Queue, within } from './queue.js';

/** Confirmations of one exposure that are waited for at one time. */
const CONFIRMING_MAX = 8;
/** How often what was left unconfirmed is confirmed again before it is left to the next that looks. */
const CONFIRM_TRIES_MAX = 3;
/** How often a step is tried while PostgreSQL is away, and the pause before the second try; it doubles with each. */
const STEP_TRIES_MAX = 4;
const STEP_PAUSE_MS = 250;
/** Beyond the longest confirmation: after so long without a step nobody is at it any more. */
const ABANDONED_AFTER_MS = 5_000;
/** How long one call of jobs waits for what it has set going. */
const CONTINUE_WAIT_MS = 5_000;

/** An exposure whose named tokens are ended; the rest follows. */
export interface Begun {
  id: string;
  invalidations: Invalidation[];
}

/** What came of ending tokens in steps. */
export type ClosureEffect = Effect & { ended: EndedCounts };

/**
 * Ends what exposed tokens were shown, and tokens that a filter named, step by step. Exposed tokens are ended before what
 * they were shown is sought, those named one by one in the transaction of the change; from then on none of them is shown
 * anything, nor is anything derived from them, so that what each was shown is complete when it is read after that. Every
 * step is one transaction and leaves behind what is still to be done: any process can go on with it.
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

  /** Ends the tokens named, which the change has locked and then read; what they were shown is for `finish`. */
  begin(
    change: Change,
    actor: NamedActor,
    named: readonly q.StandingRow[],
    cause: { comment?: string | undefined },
    id = newId(),
  ): Begun {
    const at = new Date();
    const comment = cause.comment ?? null;
    const ending = endingOf(
      { actor, reason: 'exposed', comment, batch: null, at },
      named.map((row) => ({ row, as: 'named', cover: null })),
    );
    const { tokens } = ending.counts;
    const exposure = { id, ...makerColumns(actor), reason: 'exposed' as const, comment, filter: null, tokens };
    const invalidations = this.invalidations.writeAll(change, ending.newInvalidations);
    change.write(...ending.writes, q.insertExposure(exposure, at), q.insertMembers(id, ending.members));
    this.audit.recordAll(change, ending.entries);
    return { id, invalidations };
  }

  /** The same for all tokens of a person, who is locked. */
  async beginForOwner(
    change: Change,
    actor: NamedActor,
    ownerId: string,
    cause: { comment?: string | undefined },
  ): Promise<Begun> {
    const living = await change.read<q.StandingRow>(q.selectLivingOf(ownerId));
    const begun = this.begin(change, actor, living, cause);
    change.write(q.insertRevokedOf(begun.id, ownerId));
    return begun;
  }

  /** Ends the first of the tokens that a filter named, which have been written down; the others are for `finish`. */
  async endFirst(id: string): Promise<Begun> {
    const { invalidations } = await this.#step(id);
    return { id, invalidations };
  }

  /**
   * Goes on until all has been ended and no verifier accepts any of it, and waits for that as long as is wished.
   * @param begun with what `begin` wrote, or nothing to go on with one begun earlier
   * @param waitMs longest wait; undefined: as long as a confirmation takes at most
   */
  async finish(begun: Begun, waitMs: number | undefined): Promise<ClosureEffect> {
    const limitMs = waitMs ?? this.invalidations.longestWaitMs;
    // A repeat waits for what is not confirmed yet, so that it hears of whom.
    const waited = begun.invalidations.length ? begun.invalidations : await this.#unconfirmed(begun.id);
    const opening = waited.length ? this.#confirm(begun.id, waited, limitMs) : undefined;
    const walked = this.run(begun.id);
    const [effect] = await Promise.all([opening, within(limitMs, walked)]);
    const exposure = await this.#read(begun.id);
    const { tokens, successors, descendants, shown } = exposure;
    const ended = { tokens, successors, descendants, shown };
    if (!exposure.confirmed_at) return { ended, effective: false, receipt: null, pending: effect?.pending ?? [] };
    const pending = waited.length ? [] : await this.invalidations.settled(limitMs);
    if (pending.length > 0) return { ended, effective: false, receipt: null, pending };
    return { ended, effective: true, receipt: receiptAsSeen(exposure.receipt), pending };
  }

  /** Ends and confirms the rest, as far as this process can; jobs has somebody go on with what is left. */
  run(id: string): Promise<void> {
    const running = this.#running.get(id);
    if (running) return running;
    const started = this.#run(id)
      .catch((error: Error) => {
        this.logger.warn({ exposure: id, reason: error.message }, 'ending tokens step by step: to be continued');
      })
      .finally(() => this.#running.delete(id));
    this.#running.set(id, started);
    return started;
  }

  /** Goes on with exposures that nobody has gone on with for a while, at most `limit`. */
  async continueAbandoned(limit: number): Promise<{ done: number; more: boolean }> {
    const seconds = (this.invalidations.longestWaitMs + ABANDONED_AFTER_MS) / 1_000;
    const taken = await this.db.change((change) => change.read<{ id: string }>([q.TAKE_ABANDONED, [seconds, limit]]));
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
    // What is ended is durable at once: it does not wait for a verifier that does not confirm what ended before.
    for (let ended = false; !ended; ) {
      if (this.#stopped) return;
      const step = await this.#stepAgain(id);
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

  /** A step, again when PostgreSQL was away for a moment: what one that did commit has ended is confirmed at the end. */
  async #stepAgain(id: string): Promise<{ ended: boolean; invalidations: Invalidation[] }> {
    for (let tries = 1; ; tries++)
      try {
        return await this.#step(id);
      } catch (error) {
        if (!isDatabaseUnavailable(error) || tries >= STEP_TRIES_MAX || this.#stopped) throw error;
        await sleep(STEP_PAUSE_MS * 2 ** (tries - 1), undefined, { ref: false });
      }
  }

  /**
   * One transaction, at most a step's: ends members that a filter named; when there are no more, what members were shown;
   * then their descendants. The order matters: what a member covers is dead only once that member is.
   */
  #step(id: string): Promise<{ ended: boolean; invalidations: Invalidation[] }> {
    return this.db.change(async (change) => {
      const [[exposure] = [], named, shown, derived] = (await change.readAll([
        q.lockExposure(id),
        q.selectSought(id, 'itself'),
        q.selectSought(id, 'shown'),
        q.selectSought(id, 'descendants'),
      ])) as [q.ExposureRow[], Sought[], Sought[], Sought[]];
      if (!exposure || exposure.ended_at) return { ended: true, invalidations: [] };
      if (named.length > 0) return this.#endNamed(change, exposure, named);
      if (shown.length > 0) return this.#endShown(change, exposure, shown);
      return this.#endDescendants(
        change,
        exposure,
        derived.map((member) => member.token_id),
      );
    });
  }

  async #endNamed(change: Change, exposure: q.ExposureRow, todo: readonly Sought[]) {
    const ids = todo.map((member) => member.token_id);
    const named = (await this.#lock(change, ids)).map((row): Doomed => ({ row, as: 'named', cover: null }));
    const next = exposure.reason === 'exposed' ? 'shown' : 'descendants';
    return this.#end(change, exposure, named, { keep: (members) => q.endMembers(exposure.id, members, next) });
  }

  async #endShown(change: Change, exposure: q.ExposureRow, todo: readonly Sought[]) {
    const found = await change.read<{ id: string; maker: string }>(q.selectShown(todo));
    const shownTo = new Map(found.map(({ id, maker }) => [id, maker]));
    const rows = await this.#lock(change, [...shownTo.keys()]);
    const kin = [...new Set(rows.flatMap((row) => [row.id, row.rotated_from ?? [], row.ancestors].flat()))];
    const among = kin.length ? await change.read<{ token_id: string }>(q.selectMembersAmong(exposure.id, kin)) : [];
    const members = new Set(among.map((row) => row.token_id));
    const doomed = rows
      .filter(({ id }) => !members.has(id))
      .map((row): Doomed => {
        const isSuccessor = row.rotated_from !== null && members.has(row.rotated_from);
        const cover = row.ancestors.find((above) => members.has(above)) ?? null;
        return { row, as: isSuccessor ? 'successor' : 'shown', shownTo: shownTo.get(row.id)!, cover };
      });
    // A full page may have broken off in the midst of what its last member was shown.
    const last = found.length === q.STEP_ROWS_MAX ? found.at(-1) : undefined;
    const complete = todo.slice(0, last ? todo.findIndex((member) => member.token_id === last.maker) : todo.length);
    const marks = [
      q.markShownFound(
        exposure.id,
        complete.map((member) => member.token_id),
      ),
      ...(last ? [q.markScanned(exposure.id, last.maker, last.id)] : []),
    ];
    return this.#end(change, exposure, doomed, { marks });
  }

  async #endDescendants(change: Change, exposure: q.ExposureRow, of: readonly string[]) {
    const found = of.length ? await change.read<q.StandingRow>(q.selectDescendants(of)) : [];
    const members = new Set(of);
    const doomed = found.map((row): Doomed => {
      return { row, as: 'descendant', cover: row.ancestors.find((above) => members.has(above))! };
    });
    const isAll = found.length < q.STEP_ROWS_MAX;
    const marks = isAll && of.length ? [q.markDescendantsEnded(exposure.id, of)] : [];
    return this.#end(change, exposure, doomed, { marks, ended: of.length === 0 });
  }

  #end(
    change: Change,
    exposure: q.ExposureRow,
    doomed: readonly Doomed[],
    { keep = (members) => q.insertMembers(exposure.id, members), marks = [], ended = false }: Step,
  ): { ended: boolean; invalidations: Invalidation[] } {
    const { reason, comment } = exposure;
    const batch = exposure.filter && exposure.id;
    const ending = endingOf({ actor: actorOf(exposure), reason, comment, batch, at: new Date() }, doomed);
    const invalidations = this.invalidations.writeAll(change, ending.newInvalidations);
    change.write(
      ...ending.writes,
      ...(ending.members.length ? [keep(ending.members)] : []),
      ...marks,
      q.noteStep(exposure.id, ending.counts, ended),
    );
    this.audit.recordAll(change, ending.entries);
    return { ended, invalidations };
  }

  async #lock(change: Change, ids: readonly string[]): Promise<q.StandingRow[]> {
    if (ids.length === 0) return [];
    await lockRows(change, 'tokens', ids);
    return change.read(q.selectStanding(ids));
  }

  /** Tells the verifiers and waits; what is confirmed is kept before this returns. */
  async #confirm(id: string, invalidations: readonly Invalidation[], waitMs: number | undefined): Promise<Effect> {
    const kept = Promise.withResolvers<void>();
    const startedAt = Date.now();
    const effect = await this.invalidations.confirm(invalidations, {
      waitMs,
      keep: async (receipt) => {
        try {
          await this.#keep(id, invalidations, receipt, startedAt);
        } finally {
          kept.resolve();
        }
      },
    });
    if (effect.effective) await kept.promise;
    return effect;
  }

  /** Notes what has been confirmed: with the tokens, and with the exposure, which this may finish. */
  async #keep(id: string, invalidations: readonly Invalidation[], receipt: Receipt, startedAt: number): Promise<void> {
    const changes = await this.receipts.changes(invalidations);
    const ids = invalidations.map((invalidation) => invalidation.id);
    return this.db.change(async (change) => {
      const [exposure] = await change.read<q.ExposureRow>(q.lockExposure(id));
      if (!exposure) return;
      const sinceMs = Math.max(0, startedAt - exposure.created_at.getTime());
      const sum = mergeReceipts(exposure.receipt, receipt, sinceMs);
      // One confirmation of one thing is all of it so far, and signed for that.
      const merged = exposure.receipt ? sum : this.receipts.signed(sum, invalidations, changes);
      change.write(q.keepTokenReceipts(id, ids, receipt), q.markConfirmed(id, ids));
      change.write(q.keepReceipt(id, merged), q.finish(id));
    });
  }

  /** Invalidations of members of which nobody has kept that they are confirmed; what was forgotten is written anew. */
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
      const anew = this.invalidations.writeAll(change, newInvalidations);
      if (lost.length > 0) change.write(q.moveInvalidations(id, lost));
      return [...known, ...anew];
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
    // begun in this request, and gone: put back to before it
    const [row] = await this.db.prepared<q.ExposureRow & QueryResultRow>('exposure', text, values ?? []);
    if (!row) throw forgotten();
    return row;
  }
}

/** What a step writes besides the end of tokens. */
interface Step {
  keep?: (members: readonly q.NewMember[]) => Statement;
  marks?: readonly Statement[];
  /** Nothing is left to be ended. */
  ended?: boolean;
}

/** A member that is to be ended, or whose kin is to be looked for. */
interface Sought {
  token_id: string;
  scanned_to: string | null;
}
