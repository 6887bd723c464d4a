import type { Clock, Logger } from '@latchkey/runtime';
import type { LedgerFindings, Standing } from '../ledger/index.js';

/** How long another replica, whose ledger may show that nothing is missing, is waited for. */
const GRACE_MS = 5_000;
const AGAIN_MS = 250;
const FAILED_AGAIN_MS = 1_000;
/** After it was accepted, a history that is held, or whose ledger is not whole, is examined again: first, and at the latest. */
const REPAIR_FIRST_MS = 1_000;
const REPAIR_LAST_MS = 600_000;

/** What an examination asks of PostgreSQL, the ledger and the verifiers. */
export interface ExaminationSteps {
  /** The history in which what lets somebody in is read; empty: none. */
  acceptedHistory(): string;
  accept(history: string): void;
  withdraw(): void;
  /** Reads where the database stands, and tells it. */
  refresh(): Promise<void>;
  /** Records the history that the database is in now. */
  followDatabase(): Promise<unknown>;
  /** Whether no token was ever issued in this database. */
  isEmpty(): Promise<boolean>;
  /** @see LedgerFollower.compare */
  compare(standing: Standing, isPatient: boolean): Promise<LedgerFindings>;
  /** Applies again what is missing. */
  reapply(findings: LedgerFindings): Promise<void>;
  /** @see LedgerFollower.compared */
  compared(findings: LedgerFindings): Promise<void>;
  /** @see LedgerFollower.adopt */
  adopt(history: string, isAll: boolean): Promise<void>;
  /** @see LedgerFollower.isWhole */
  isWhole(): boolean;
  /** The ledger that is open now, or nothing. */
  ledger(): string;
  /** From now on all tokens are answered in this history, unless it has been settled or left meanwhile. */
  settle(history: string, choice: 'ledger' | 'verifiers'): Promise<void>;
  /** Tokens and sessions from before now are not accepted until an administrator has decided. */
  hold(findings: LedgerFindings): Promise<void>;
  /** How many verifiers have shown a renewal that this history has, and has not. */
  witnesses(history: string): { readonly found: number; readonly lost: number };
  /** After how many milliseconds every lease that was granted before has lapsed. */
  readonly lapsedMs: number;
  /** Tells clients that what they may show has changed. */
  announceChange(): Promise<unknown>;
}

/**
 * Decides in which history of the database this process answers. Nothing that lets somebody in is read from a history
 * before this process has compared its ledger with it and applied again what was missing. When no ledger shows that nothing
 * else is missing, tokens from before are held.
 */
export class Examination {
  #standing: Standing | undefined;
  #examining: Promise<void> | undefined;
  readonly #accepted = Promise.withResolvers<void>();
  /** Where the database stood when it was accepted last, and when that is to be examined again. */
  #repair = { of: '', waitMs: 0, dueMs: 0 };
  /** What was logged of the ledger since then. */
  #problems = '';
  #doubtSinceMs: number | undefined;
  #doubtOf: string | undefined;
  #cancel: () => void = () => undefined;
  #stopped = false;

  constructor(
    private readonly steps: ExaminationSteps,
    private readonly logger: Logger,
    private readonly clock: Pick<Clock, 'monotonicMs' | 'after'>,
  ) {}

  /** Fulfilled once a history was accepted. */
  get accepted(): Promise<void> {
    return this.#accepted.promise;
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  /** To be called with where the database stands, after each reading. */
  stand(standing: Standing): void {
    this.#standing = standing;
    // While tokens are held, the verifiers of a promoted standby can still show that it has lost nothing.
    const isOpen = (standing.isHeld && this.#isWitnessed(standing)) || this.#isRepairable(standing);
    const isAccepted = standing.isCurrent && this.steps.acceptedHistory() === standing.history && !isOpen;
    if (!standing.isCurrent || this.steps.acceptedHistory() !== standing.history) this.steps.withdraw();
    if (!isAccepted) this.#examine();
  }

  /** Whether a disk may have been repaired, or another process or an administrator may have settled the history. */
  #isRepairable(standing: Standing): boolean {
    const isWanting = standing.isHeld || (standing.settledHistory === standing.history && !this.steps.isWhole());
    return isWanting && (this.#repair.of !== this.#placeOf(standing) || this.clock.monotonicMs() >= this.#repair.dueMs);
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
        if (againMs !== null) this.#cancel = this.clock.after(againMs, () => void this.steps.refresh());
      });
  }

  /** @returns after how many milliseconds to look again; null: this history is accepted */
  async #examineOnce(): Promise<number | null> {
    let standing = this.#standing!;
    if (!standing.isCurrent) {
      await this.steps.followDatabase();
      // The standing that led here is from before; the next is told while this still runs.
      return 0;
    }
    const { history } = standing;
    const isEarly = this.#isEarly(history);
    const findings = await this.steps.compare(standing, isEarly);
    this.#log(findings.problems);
    if (findings.missing.length > 0) await this.steps.reapply(findings);
    await this.steps.compared(findings);
    // What another process has found here meanwhile; the first of them can have begun before.
    await this.steps.refresh();
    await this.steps.refresh();
    standing = this.#standing!;
    if (standing.history !== history) return 0;
    if (await this.#isSettled(standing, findings)) {
      this.#accept(history);
      if (findings.missing.length > 0) await this.steps.announceChange();
      return null;
    }
    this.#doubtSinceMs = this.#doubtOf === history ? this.#doubtSinceMs : this.clock.monotonicMs();
    this.#doubtOf = history;
    // What was found while others were waited for decides nothing, however long it took.
    if (isEarly && !standing.isHeld && findings.doubt !== 'no_ledger') return AGAIN_MS;
    await this.steps.hold(findings);
    this.#accept(history);
    return null;
  }

  /** Once, and again with each repeated examination. */
  #log(problems: readonly string[]): void {
    const text = problems.join('\n');
    if (text === this.#problems) return;
    this.#problems = text;
    for (const problem of problems) this.logger.error({ problem }, 'the ledger is not what was written');
  }

  /** Whether other replicas are still waited for. */
  #isEarly(history: string): boolean {
    if (this.#doubtOf !== history) return true;
    return this.clock.monotonicMs() - this.#doubtSinceMs! < GRACE_MS;
  }

  /** A ledger that can be opened again is compared at once. */
  #placeOf({ history, settledHistory }: Pick<Standing, 'history' | 'settledHistory'>): string {
    return `${history} ${settledHistory} ${this.steps.ledger()}`;
  }

  #accept(history: string): void {
    const { of, waitMs: last } = this.#repair;
    const place = this.#placeOf({ history, settledHistory: this.#standing!.settledHistory });
    const waitMs = of === place ? Math.min(2 * last, REPAIR_LAST_MS) : REPAIR_FIRST_MS;
    this.#repair = { of: place, waitMs, dueMs: this.clock.monotonicMs() + waitMs };
    this.#problems = '';
    this.steps.accept(history);
    this.#accepted.resolve();
  }

  /** Whether all tokens can be answered in this history; settles it, if a ledger shows that nothing else is missing. */
  async #isSettled(standing: Standing, findings: LedgerFindings): Promise<boolean> {
    const { history, settledHistory } = standing;
    if (settledHistory === history) {
      // This database is whole: a ledger that is not is replaced by a new one, which vouches for it from now on. What it does not
      // know was decided on only if somebody did.
      if (!this.steps.isWhole()) await this.steps.adopt(history, standing.decidedAtMs !== null);
      return true;
    }
    // Where a ledger was kept before, though this database was never settled, or is not whole, that is an old backup.
    const isNew = settledHistory === null && !standing.isRestored && findings.missing.length === 0;
    const isUnknown = findings.problems.length === 0 && findings.reachesTo === null;
    const isFirst = isNew && (isUnknown || (await this.steps.isEmpty()));
    const isMereStart = settledHistory?.split('/')[0] === history.split('/')[0];
    const isUnguarded = isMereStart && findings.doubt === 'no_ledger' && !standing.isUnsettled;
    const isVouched = findings.doubt === null || isUnguarded || isFirst;
    const choice = isVouched ? 'ledger' : 'verifiers';
    if (!isVouched && !this.#isWitnessed(standing)) return false;
    await this.steps.settle(history, choice);
    await this.steps.adopt(history, true);
    return true;
  }

  /**
   * Whether a promoted standby remembers the last renewals of all verifiers that have renewed since, for longer than the
   * longest lease: then it has lost nothing that they had been told of.
   */
  #isWitnessed({ history, isPromoted }: Standing): boolean {
    if (!isPromoted) return false;
    const { found, lost } = this.steps.witnesses(history);
    const waitedMs = this.#doubtOf === history ? this.clock.monotonicMs() - this.#doubtSinceMs! : 0;
    return found > 0 && lost === 0 && waitedMs >= this.steps.lapsedMs;
  }
}
