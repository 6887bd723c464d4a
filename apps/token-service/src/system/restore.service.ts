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
import { type LedgerFindings, LedgerService, type Standing } from '../ledger/index.js';
import { DeclarationsService } from '../maintenance/index.js';
import { RevokeAllService } from '../tokens/index.js';
import { LocksService, mustBeRecent, selectRecentSignIn } from '../verification/index.js';
import { ReplayService } from './replay.service.js';
import {
  addToRestore,
  DOUBT,
  DROP_RESET_CODES,
  dropAllPasswords,
  endSessionsBefore,
  holdBefore,
  insertRestore,
  keepIssuedSince,
  LOCK_LOG,
  type LockedLog,
  type RestoreRow,
  SELECT_RESTORE,
  selectRestoreOf,
  settleLog,
  settleRestoreRow,
  toRestore,
} from './restore.queries.js';

/** How long another replica, whose ledger may show that nothing is missing, is waited for. */
const GRACE_MS = 5_000;
const AGAIN_MS = 250;
const START_WAIT_MS = 2_000;
const FAILED_AGAIN_MS = 1_000;

const MEANINGS: Record<NonNullable<Restore['reason']>, string> = {
  no_ledger: 'no ledger is configured (LEDGER_DIR)',
  ledger_missing: 'the ledger of this database is not in LEDGER_DIR',
  ledger_copied: 'the ledger is a copy, which can be older than the last revocations',
  ledger_cut: 'the ledger lacks entries that it had',
  ledger_unreadable: 'the ledger cannot be read',
  ledger_incomplete: 'the ledgers at hand do not reach to the last revocations',
};

/**
 * Notices that the database was put back to an earlier state, and sees to it that no revoked token is accepted for that.
 *
 * Nothing that lets somebody in is read from a history before this process has compared its ledger with it and applied again
 * what was missing. When no ledger shows that nothing else is missing, tokens from before are not accepted (503
 * `restored`) until an administrator has decided.
 */
@Injectable()
export class RestoreService implements BeforeApplicationShutdown {
  #standing: Standing | undefined;
  #examining: Promise<void> | undefined;
  readonly #accepted = Promise.withResolvers<void>();
  #doubtSinceMs: number | undefined;
  #doubtOf: string | undefined;
  /** Whether the last history that this process has accepted was settled. */
  #wasSettled = false;
  #cancel: () => void = () => undefined;
  #stopped = false;

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
  ) {}

  /**
   * To be called before the listeners open. Resolves when this process has compared its ledger, or after two seconds: until
   * it has, everything that lets somebody in is 503.
   */
  async start(): Promise<void> {
    this.db.onUnaccepted(() => void this.ledger.refresh());
    await this.ledger.start((standing) => this.#stand(standing));
    const late = Promise.withResolvers<void>();
    const cancel = this.clock.after(START_WAIT_MS, late.resolve);
    await Promise.race([this.#accepted.promise, late.promise]);
    cancel();
  }

  beforeApplicationShutdown(): void {
    this.#stopped = true;
    this.#cancel();
  }

  #stand(standing: Standing): void {
    this.#standing = standing;
    // While tokens are held, the verifiers of a promoted standby can still show that it has lost nothing.
    const isOpen = standing.isHeld && standing.isPromoted;
    const isAccepted = standing.isCurrent && this.db.acceptedHistory === standing.history && !isOpen;
    if (isAccepted && standing.settledHistory === standing.history) this.#wasSettled = true;
    if (!standing.isCurrent || this.db.acceptedHistory !== standing.history) this.db.withdraw();
    if (!isAccepted) this.#examine();
  }

  #examine(): void {
    if (this.#stopped || this.#examining) return;
    this.#cancel();
    this.#examining = this.#examineOnce()
      .catch((error: Error) => {
        this.logger.warn({ reason: error.message }, 'comparing the database with the ledger failed, retrying');
        return FAILED_AGAIN_MS;
      })
      .then((againMs) => {
        this.#examining = undefined;
        if (againMs !== null) this.#cancel = this.clock.after(againMs, () => void this.ledger.refresh());
      });
  }

  /** @returns after how many milliseconds to look again; null: this history is accepted */
  async #examineOnce(): Promise<number | null> {
    let standing = this.#standing!;
    if (!standing.isCurrent) {
      await this.invalidations.followDatabase();
      // The standing that led here is from before; the next is told while this still runs.
      return 0;
    }
    const { history } = standing;
    const findings = await this.ledger.compare(standing, this.#wasSettled, this.#isEarly(history));
    for (const problem of findings.problems) this.logger.error({ problem }, 'the ledger is not what was written');
    if (findings.missing.length > 0) await this.#reapply(findings);
    await this.ledger.compared(history);
    standing = this.#standing!;
    if (standing.history !== history) return 0;
    if (await this.#isSettled(standing, findings)) {
      this.#wasSettled = true;
      this.#accept(history);
      if (findings.missing.length > 0) await this.declarations.announceChange();
      return null;
    }
    if (standing.doubtedAt === null) await this.db.change(async (change) => change.write(DOUBT));
    this.#doubtSinceMs = this.#doubtOf === history ? this.#doubtSinceMs : this.clock.monotonicMs();
    this.#doubtOf = history;
    if (this.#isEarly(history) && !standing.isHeld && this.ledger.isOn) return AGAIN_MS;
    await this.#hold(findings);
    this.#wasSettled = false;
    this.#accept(history);
    return null;
  }

  /** Whether other replicas are still waited for. */
  #isEarly(history: string): boolean {
    if (this.#doubtOf !== history) return true;
    return this.clock.monotonicMs() - this.#doubtSinceMs! < GRACE_MS;
  }

  #accept(history: string): void {
    this.db.accept(history);
    this.#accepted.resolve();
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

  /** Whether all tokens can be answered in this history; settles it, if a ledger shows that nothing else is missing. */
  async #isSettled(standing: Standing, findings: LedgerFindings): Promise<boolean> {
    const { history, settledHistory } = standing;
    if (settledHistory === history) return true;
    // Where a ledger knows more than a database that was never compared, this is no first start.
    const isFirst = settledHistory === null && findings.missing.length === 0;
    const isMereStart = settledHistory?.split('/')[0] === history.split('/')[0];
    const isUnguarded = isMereStart && findings.doubt === 'no_ledger';
    const isVouched = findings.doubt === null || isUnguarded || isFirst;
    const choice = isVouched ? 'ledger' : 'verifiers';
    if (!isVouched && !this.#isWitnessed(standing)) return false;
    const invalidations = await this.db.change(async (change) => {
      const [log] = await change.read<LockedLog>(LOCK_LOG);
      if (log?.history !== history || !log.is_current || log.settled_history === history) return [];
      change.write(settleLog(history));
      const [restore] = await change.read<RestoreRow>(selectRestoreOf(history));
      if (!restore || restore.settled_at) return [];
      const at = new Date();
      change.write(settleRestoreRow(restore.id, choice, at));
      this.audit.record(change, {
        actor: SYSTEM,
        action: 'system.settled',
        subject: { type: 'system', id: restore.id, name: 'restore' },
        details: { choice },
      });
      return log.restored_before
        ? [this.invalidations.write(change, { kind: 'everything', subject: '', cut: false })]
        : [];
    });
    this.#confirmLater(invalidations);
    await this.ledger.adopt();
    return true;
  }

  /**
   * Whether a promoted standby remembers the last renewals of all verifiers that have renewed since, for longer than the
   * longest lease: then it has lost nothing that they had been told of.
   */
  #isWitnessed({ history, isPromoted, doubtedAt }: Standing): boolean {
    if (!isPromoted || doubtedAt === null) return false;
    const { found, lost } = this.invalidations.leases.witnessesOf(history);
    const waitedMs = this.#doubtOf === history ? this.clock.monotonicMs() - this.#doubtSinceMs! : 0;
    return found > 0 && lost === 0 && waitedMs >= lapsedAfterMs(this.invalidations.leaseMs);
  }

  /** Tokens and sessions from before now are not accepted until an administrator has decided. */
  async #hold({ history, doubt: reason, reachesTo }: LedgerFindings): Promise<void> {
    const invalidations = await this.db.change(async (change) => {
      const [log] = await change.read<LockedLog>(LOCK_LOG);
      if (log?.history !== history || log.settled_history === history) return [];
      const [before] = await change.read<RestoreRow>(selectRestoreOf(history));
      const at = new Date();
      if (log.restored_before === null || !before) change.write(holdBefore(at));
      change.write(DROP_RESET_CODES);
      if (!before) {
        const id = newId();
        change.write(insertRestore(id, history, at, reason, reachesTo));
        this.audit.record(change, {
          actor: SYSTEM,
          action: 'system.restored',
          subject: { type: 'system', id, name: 'restore' },
          details: { reason },
        });
      } else if (before.reason !== null || log.restored_before !== null) return [];
      else
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
    const written = await this.db.change(async (change) => {
      const [log] = await change.read<LockedLog>(LOCK_LOG);
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
      change.write(settleLog(log!.history), addToRestore(restore.id, done));
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
    await this.ledger.adopt();
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
