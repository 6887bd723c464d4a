import type { Effect, Restore, SettledRestore, SettleRestoreBody } from '@latchkey/contracts';
import { type Clock, type Logger, newId } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { Gauge, type Registry } from 'prom-client';
import { AuditService } from '../audit/index.js';
import { type Actor, SYSTEM } from '../authorization/index.js';
import { CLOCK, LOGGER } from '../config.js';
import { Database } from '../database/index.js';
import { conflict, forbidden } from '../http/index.js';
import { type Invalidation, InvalidationService, lapsedAfterMs } from '../invalidation/index.js';
import { type LedgerFindings, LedgerService } from '../ledger/index.js';
import { DeclarationsService } from '../maintenance/index.js';
import { RevokeAllService } from '../tokens/index.js';
import { LocksService, mustBeRecent, selectRecentSignIn } from '../verification/index.js';
import { Examination, type ExaminationSteps } from './examination.js';
import { ReplayService } from './replay.service.js';
import {
  addToRestore,
  DROP_RESET_CODES,
  distrustLedgers,
  dropAllPasswords,
  endSessionsBefore,
  holdBefore,
  insertRestore,
  keepIssuedSince,
  LOCK_LOG,
  type LockedLog,
  type RestoreRow,
  SELECT_RESTORE,
  SELECT_UNSETTLED,
  selectRestoreOf,
  settleLog,
  settleRestoreRow,
  toRestore,
} from './restore.queries.js';

const START_WAIT_MS = 2_000;

const MEANINGS: Record<NonNullable<Restore['reason']>, string> = {
  no_ledger: 'no ledger is configured (LEDGER_DIR)',
  ledger_missing: 'the ledger of this database is not in LEDGER_DIR',
  ledger_copied: 'the ledger is a copy, which can be older than the last revocations',
  ledger_cut: 'the ledger lacks entries that it had',
  ledger_unreadable: 'the ledger cannot be read',
  ledger_uncertain:
    'beside it is the ledger of another server, on which this database or a copy of it was used at the same time, or one that cannot be read',
  ledger_incomplete: 'the ledgers at hand do not reach to the last revocations',
};

/**
 * Notices that the database was put back to an earlier state, and sees to it that no revoked token is accepted for that.
 */
@Injectable()
export class RestoreService implements BeforeApplicationShutdown {
  readonly #examination: Examination;

  constructor(
    private readonly db: Database,
    private readonly ledger: LedgerService,
    private readonly replays: ReplayService,
    private readonly invalidations: InvalidationService,
    private readonly declarations: DeclarationsService,
    private readonly revokeAll: RevokeAllService,
    private readonly locks: LocksService,
    private readonly audit: AuditService,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {
    this.#examination = new Examination(this.#steps(), logger, clock);
  }

  #steps(): ExaminationSteps {
    const { db, ledger, invalidations } = this;
    return {
      acceptedHistory: () => db.acceptedHistory,
      accept: (history) => db.accept(history),
      withdraw: () => db.withdraw(),
      refresh: () => ledger.refresh(),
      followDatabase: () => invalidations.followDatabase(),
      isEmpty: async () => (await db.query('SELECT FROM tokens LIMIT 1')).length === 0,
      compare: (...standing) => ledger.compare(...standing),
      reapply: (findings) => this.#reapply(findings),
      compared: (findings) => ledger.compared(findings),
      settle: (history, choice) => this.#settleByItself(history, choice),
      adopt: (history, isAll) => ledger.adopt(history, isAll),
      isWhole: () => ledger.isWhole,
      ledger: () => ledger.openLedger,
      hold: (findings) => this.#hold(findings),
      witnesses: (history) => invalidations.leases.witnessesOf(history),
      lapsedMs: lapsedAfterMs(invalidations.leaseMs),
      announceChange: () => this.declarations.announceChange(),
    };
  }

  /**
   * To be called before the listeners open. Resolves when this process has compared its ledger, or after two seconds: until
   * it has, everything that lets somebody in is 503.
   */
  async start(): Promise<void> {
    this.db.onUnaccepted(() => void this.ledger.refresh());
    await this.ledger.start((standing) => this.#examination.stand(standing));
    const late = Promise.withResolvers<void>();
    const cancel = this.clock.after(START_WAIT_MS, late.resolve);
    await Promise.race([this.#examination.accepted, late.promise]);
    cancel();
  }

  beforeApplicationShutdown(): void {
    this.#examination.stop();
  }

  async #reapply(findings: LedgerFindings): Promise<void> {
    const { restore, invalidations } = await this.replays.apply(findings);
    this.logger.error(
      {
        restore: restore.id,
        reapplied: restore.reapplied,
        sessionsEnded: restore.sessionsEnded,
        mustSetPassword: restore.mustSetPassword,
      },
      'the database was put back to an earlier state: changes that it had lost were applied again from the ledger. If no administrator can sign in now, run apps/token-service/dist/admin-reset.js',
    );
    this.#confirmLater(invalidations);
  }

  /** From now on all tokens are answered in this history, unless it has been settled or left meanwhile. */
  async #settleByItself(history: string, choice: 'ledger' | 'verifiers'): Promise<void> {
    const invalidations = await this.db.change(async (change) => {
      const [log] = await change.read<LockedLog>(LOCK_LOG);
      if (log?.history !== history || !log.is_current || log.settled_history === history) return [];
      change.write(...settleLog(history));
      // Also those of histories that ended before anybody had decided: what they held is answered from now on.
      for (const { id } of await change.read<RestoreRow>(SELECT_UNSETTLED)) {
        change.write(settleRestoreRow(id, choice, new Date()));
        this.audit.record(change, {
          actor: SYSTEM,
          action: 'system.settled',
          subject: { type: 'system', id, name: 'restore' },
          details: { choice },
        });
      }
      return log.restored_before
        ? [this.invalidations.write(change, { kind: 'everything', subject: '', cut: false })]
        : [];
    });
    this.#confirmLater(invalidations);
  }

  /** Tokens and sessions from before now are not accepted until an administrator has decided. */
  async #hold({ history, doubt: reason, reachesTo, gap }: LedgerFindings): Promise<void> {
    const invalidations = await this.db.change(async (change) => {
      const [log] = await change.read<LockedLog>(LOCK_LOG);
      if (log?.history !== history || log.settled_history === history) return [];
      // For the processes after this one.
      if (gap) change.write(distrustLedgers(gap.ledger));
      const [before] = await change.read<RestoreRow>(selectRestoreOf(history));
      // A backup that was made while its tokens were held contains an earlier time, which is not that of this restore.
      const isHeld = log.restored_before !== null && before !== undefined && before.reason !== null;
      if (isHeld) return [];
      const at = new Date();
      change.write(holdBefore(at), DROP_RESET_CODES);
      if (!before) {
        const id = newId();
        change.write(insertRestore(id, history, at, reason, reachesTo));
        this.audit.record(change, {
          actor: SYSTEM,
          action: 'system.restored',
          subject: { type: 'system', id, name: 'restore' },
          details: { reason },
        });
      } else
        change.write([
          'UPDATE restores SET reason = $2, settled_at = NULL, choice = NULL WHERE id = $1',
          [before.id, reason],
        ]);
      return [this.invalidations.write(change, { kind: 'everything', subject: '', cut: true })];
    });
    if (invalidations.length === 0) return;
    this.logger.error(
      { reason, ledgerReachesTo: reachesTo },
      `the database may have been put back to an earlier state, and ${MEANINGS[reason!]}: tokens issued before now get 503 restored until an administrator decides on the page System of the console, or by POST /v1/system/restore/settle`,
    );
    this.#confirmLater(invalidations);
  }

  /**
   * Decides about the tokens from before a restore, for administrators who have just signed in.
   * @param waitMs longest wait; undefined: as long as it takes
   * @throws ApiError `forbidden`, `reauthentication_required`, or `conflict` when nothing is unsettled
   */
  async settle(actor: Actor, { choice }: SettleRestoreBody, waitMs: number | undefined): Promise<SettledRestore> {
    if (actor.type !== 'user') throw forbidden('Only administrators who are signed in may settle a restore.');
    let history = '';
    const written = await this.db.change(async (change) => {
      const [log] = await change.read<LockedLog>(LOCK_LOG);
      history = log!.history;
      const { now, read } = await this.locks.lock(change, actor, {}, selectRecentSignIn(actor));
      if (!now.rights.everywhere) throw forbidden('Only administrators who are signed in may settle a restore.');
      mustBeRecent(read[0]?.[0]);
      const [restore] = await change.read<RestoreRow>(selectRestoreOf(log!.history));
      const before = log!.restored_before;
      if (!restore || restore.settled_at || !before) throw conflict('No restore is unsettled.');
      const sessions = await change.read(endSessionsBefore(before));
      change.write(DROP_RESET_CODES);
      const invalidations: Invalidation[] = [];
      let people = 0;
      if (choice === 'revoke') {
        const comment = 'The database was restored from a backup: all tokens from before are revoked.';
        invalidations.push(this.revokeAll.write(change, now, { reason: 'policy', comment }));
        change.write(keepIssuedSince(before));
        people = (await change.read(dropAllPasswords(now.userId))).length;
      } else invalidations.push(this.invalidations.write(change, { kind: 'everything', subject: '', cut: false }));
      const done = { reapplied: 0, mustSetPassword: people, sessionsEnded: sessions.length, notReapplied: [] };
      change.write(...settleLog(log!.history), addToRestore(restore.id, done));
      change.write(settleRestoreRow(restore.id, choice, new Date()));
      this.audit.record(change, {
        actor: now,
        action: 'system.settled',
        subject: { type: 'system', id: restore.id, name: 'restore' },
        details: { choice, sessionsEnded: sessions.length, mustSetPassword: people },
      });
      return invalidations;
    });
    this.logger.warn({ choice }, 'an administrator has settled the restore');
    await this.ledger.decided(history);
    const effect = await this.invalidations.confirm(written, { waitMs });
    if (choice === 'revoke') void this.revokeAll.mark();
    return { ...effect, restore: (await this.latest())! };
  }

  /** The latest restore that was noticed; null: none was. */
  async latest(): Promise<Restore | null> {
    const [row] = await this.db.prepared<RestoreRow>('restore', SELECT_RESTORE, []);
    return row ? toRestore(row) : null;
  }

  /** @throws Error while an administrator must decide about tokens from before a restore */
  async mustBeSettled(): Promise<void> {
    const restore = await this.latest();
    if (restore?.state === 'unsettled')
      throw new Error(`restored at ${restore.detectedAt}, and not settled: see the page System`);
  }

  /** No caller waits. */
  #confirmLater(invalidations: readonly Invalidation[]): void {
    if (invalidations.length === 0) return;
    this.invalidations.confirm(invalidations, { waitMs: 0 }).catch((error: Error): Effect | undefined => {
      this.logger.warn({ reason: error.message }, 'confirming what was applied again failed');
      return undefined;
    });
  }

  registerMetrics(registry: Registry): void {
    const latest = () => this.latest();
    new Gauge({
      name: 'latchkey_restored_at_seconds',
      help: 'When the latest restore of the database was noticed, in seconds since 1970; 0: never',
      registers: [registry],
      async collect() {
        const restore = await latest().catch(() => null);
        this.set(restore ? Date.parse(restore.detectedAt) / 1_000 : 0);
      },
    });
    new Gauge({
      name: 'latchkey_restore_unsettled',
      help: '1 while tokens from before a restore are not accepted because an administrator must decide',
      registers: [registry],
      async collect() {
        const restore = await latest().catch(() => null);
        this.set(restore?.state === 'unsettled' ? 1 : 0);
      },
    });
  }
}
