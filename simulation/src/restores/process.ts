import type { LedgerFindings, LedgerFollower, LedgerOutcome } from '@latchkey/token-service/ledger';
import type { Examination, ExaminationSteps } from '@latchkey/token-service/restore';
import { Machine } from '../machine.js';
import type { ShippedModules } from '../modules.js';
import { Unavailable } from '../network.js';
import type { Random } from '../random.js';
import type { Schedule } from '../schedule.js';
import type { RestorableDatabase, Tables } from './database.js';
import type { Disk } from './disk.js';
import { SimulatedThread } from './thread.js';

export const KEY = 'a key of simulated ledgers of 32 characters or more';
const LAPSED_MS = 12_000;
/** Longest that verifiers are waited for. */
const CONFIRM_SLOWEST_MS = 4_000;

export type Verdict = 'allowed' | 'refused' | 'restored';

/** Where a process runs, and with what. */
export interface Place {
  readonly random: Random;
  readonly schedule: Schedule;
  readonly db: RestorableDatabase;
  readonly modules: ShippedModules;
  /** LEDGER_RETENTION_DAYS and AUDIT_RETENTION_MONTHS. */
  readonly retention: { readonly ledgerDays: number; readonly auditMonths: number };
  note(text: string): void;
  /** All tokens were revoked again. */
  onEverything(): void;
  /** A change was committed, and is not answered yet. */
  onCommit(): void;
  /** From now on a process answers in the history that the database is in. */
  onAccept(by: TokenService): void;
}

const silent = () => undefined;
const logger = { debug: silent, info: silent, warn: silent, error: silent } as never;

/** A token-service, as far as ledgers and restores are concerned. */
export class TokenService {
  readonly machine: Machine;
  isAlive = false;
  /** Whether a ledger is configured. */
  hasLedger = true;
  /** Restores that were held, at this process. */
  holds = 0;
  #follower: LedgerFollower | undefined;
  #examination: Examination | undefined;
  #accepted = '';
  #starts = 0;

  constructor(
    readonly name: string,
    protected readonly place: Place,
    readonly disk: Disk,
  ) {
    this.machine = new Machine(place.schedule, place.random);
  }

  /** How often it was started: what a process knows ends with it. */
  get life(): number {
    return this.#starts;
  }

  start(): void {
    const { modules, random, db } = this.place;
    const { machine } = this;
    // What is left of one that takes long to stop.
    machine.kill();
    this.#starts++;
    this.isAlive = true;
    this.#accepted = '';
    const clock = {
      monotonicMs: () => machine.monotonicMs(),
      uptimeMs: () => machine.uptimeMs(),
      wallMs: () => machine.wallMs(),
      after: (ms: number, callback: () => void) => machine.after(ms, callback),
    };
    const follower = new modules.LedgerFollower({
      store: db.storeOf(machine),
      place: this.hasLedger ? { dir: this.disk.dir, secret: KEY } : undefined,
      thread: new SimulatedThread(modules, machine, this.disk, random),
      retention: this.place.retention,
      logger,
      clock,
      newId: () => random.uuid(machine.wallMs()),
    });
    const examination = new modules.Examination(this.#steps(follower), logger, clock);
    this.#follower = follower;
    this.#examination = examination;
    follower.start((standing) => examination.stand(standing)).catch(silent);
  }

  kill(): void {
    this.isAlive = false;
    this.machine.kill();
  }

  /** In order. */
  async stop(): Promise<void> {
    this.isAlive = false;
    this.#examination!.stop();
    this.#follower!.pause();
    const started = this.#starts;
    await this.#follower!.stop();
    if (started === this.#starts) this.machine.kill();
  }

  /** @throws Unavailable */
  async check(tokenId: string): Promise<Verdict> {
    const { db } = this.place;
    return db.statement(this.machine, () => {
      this.mustBeAccepted();
      const token = db.tables.tokens.get(tokenId);
      if (!token || token.isRevoked || token.isDisabled) return 'refused';
      const before = db.tables.restoredBeforeMs;
      return before !== null && token.createdMs < before ? 'restored' : 'allowed';
    });
  }

  /** @throws Unavailable */
  async issue(tokenId: string): Promise<void> {
    const { db } = this.place;
    await db.transaction(this.machine, ({ atMs }) => {
      this.mustBeAccepted();
      db.tables.tokens.set(tokenId, { id: tokenId, createdMs: atMs, isRevoked: false, isDisabled: false });
    });
  }

  /**
   * Changes a token, waits for its ledger and meanwhile for verifiers, and keeps the receipt.
   * @returns what the receipt says of the ledger
   * @throws Unavailable when it is not known, or not certain, that the change was made
   */
  async change(tokenId: string, action: 'token.revoked' | 'token.disabled' | 'token.enabled'): Promise<LedgerOutcome> {
    const { db, random } = this.place;
    const event = await db.transaction(this.machine, ({ xid, atMs }) => {
      this.mustBeAccepted();
      const token = db.tables.tokens.get(tokenId);
      if (!token || token.isRevoked) throw new Unavailable('there is no such token');
      if (action === 'token.revoked') token.isRevoked = true;
      else token.isDisabled = action === 'token.disabled';
      db.record(xid, atMs, action, tokenId);
      return db.tables.events.at(-1)!.id;
    });
    this.place.onCommit();
    const isKnown = () => db.tables.events.some(({ id }) => id === event);
    const confirmed = async () => {
      // Without verifiers to wait for, the reading behind the commit suffices.
      if (random.chance(0.5)) return;
      await new Promise<void>((resolve) => this.machine.deliverAfter(random.spread(1, CONFIRM_SLOWEST_MS), resolve));
      if (!(await db.statement(this.machine, isKnown))) throw new Unavailable('the change was lost');
    };
    const [ledger] = await Promise.all([this.#follower!.written(), confirmed()]);
    await db.transaction(this.machine, silent);
    return ledger;
  }

  /** An administrator decides. @returns false: nothing is unsettled */
  async settle(choice: 'revoke' | 'accept'): Promise<boolean> {
    const { db } = this.place;
    let decided = '';
    const isDone = await db.transaction(this.machine, ({ xid, atMs }) => {
      this.mustBeAccepted();
      const { tables, history } = db;
      decided = history;
      const restore = tables.restores.find((one) => one.history === history);
      const before = tables.restoredBeforeMs;
      if (!restore || restore.isSettled || before === null) return false;
      if (choice === 'revoke') {
        for (const token of tables.tokens.values()) if (token.createdMs < before) token.isRevoked = true;
        db.record(xid, atMs, 'tokens.revoked_all', '');
      }
      this.#settleLog();
      restore.isSettled = true;
      restore.decidedMs = db.nowMs;
      return true;
    });
    if (isDone) await this.#follower!.decided(decided);
    return isDone;
  }

  protected mustBeAccepted(): void {
    const { db } = this.place;
    const history = db.isCurrent ? db.history : '';
    if (history !== '' && history === this.#accepted) return;
    throw new Unavailable('it is being compared with the ledger');
  }

  #settleLog(): void {
    const { db } = this.place;
    Object.assign(db.tables, {
      settledHistory: db.history,
      settledIncarnation: db.tables.incarnation,
      restoredBeforeMs: null,
    });
    for (const row of db.tables.streams.values())
      if (row.compared_history === db.history) Object.assign(row, { is_settled: true, settled_seen_at: row.seen_at });
  }

  /** What `RestoreService` and `ReplayService` do in PostgreSQL. */
  #steps(follower: LedgerFollower): ExaminationSteps {
    const { db, note } = this.place;
    return {
      acceptedHistory: () => this.#accepted,
      accept: (history) => {
        note(`${this.name} answers in ${history.slice(-8)}`);
        this.#accepted = history;
        this.place.onAccept(this);
      },
      withdraw: () => {
        this.#accepted = '';
      },
      refresh: () => follower.refresh(),
      followDatabase: () =>
        db.transaction(this.machine, () => {
          const { tables } = db;
          if (tables.incarnation !== db.incarnation) tables.log = this.place.random.uuid(db.nowMs);
          Object.assign(tables, { incarnation: db.incarnation, started: db.started });
        }),
      isEmpty: () => db.statement(this.machine, () => db.tables.tokens.size === 0),
      compare: async (...given) => {
        const findings = await follower.compare(...given);
        const [problem] = findings.problems;
        note(
          `${this.name} compared: ${findings.missing.length} missing, ${findings.doubt ?? 'vouched for'}${problem ? `, ${problem}` : ''}`,
        );
        return findings;
      },
      reapply: (findings) => this.reapply(findings),
      compared: (findings) => follower.compared(findings),
      settle: async (history) => {
        await db.transaction(this.machine, () => {
          if (db.history !== history || !db.isCurrent || db.tables.settledHistory === history) return;
          this.#settleLog();
          for (const restore of db.tables.restores) if (restore.history === history) restore.isSettled = true;
        });
      },
      adopt: (...given) => follower.adopt(...given),
      isWhole: () => follower.isWhole,
      ledger: () => follower.openLedger,
      hold: (findings) => this.#hold(findings),
      // Fail-overs are settled by ledgers here.
      witnesses: () => ({ found: 0, lost: 0 }),
      lapsedMs: LAPSED_MS,
      announceChange: async () => undefined,
    };
  }

  protected async reapply({ history, missing }: LedgerFindings): Promise<void> {
    const { db, modules, note } = this.place;
    const replay = modules.replayOf(missing);
    await db.transaction(this.machine, ({ xid, atMs }) => {
      if (!this.isOf(history)) throw new Unavailable('started again meanwhile');
      const { tables } = db;
      for (const token of tables.tokens.values()) {
        if (token.isRevoked) continue;
        if (replay.revoked.has(token.id)) {
          token.isRevoked = true;
          db.record(xid, atMs, 'token.revoked', token.id);
        } else if (replay.everything) token.isRevoked = true;
        else if (replay.disabledTokens.has(token.id) && !token.isDisabled) {
          token.isDisabled = true;
          db.record(xid, atMs, 'token.disabled', token.id);
        }
      }
      if (replay.everything) this.place.onEverything();
      if (replay.everything) db.record(xid, atMs, 'tokens.revoked_all', '');
      for (const { e } of missing) tables.replays.add(e);
      if (!tables.restores.some((one) => one.history === history))
        tables.restores.push({ history, reason: null, isSettled: false, decidedMs: null });
      if (tables.settledHistory === history)
        for (const restore of tables.restores) if (restore.history === history) restore.isSettled = true;
    });
    note(`${this.name} applied again: ${missing.map(({ a, s = '' }) => `${a} ${s.slice(-4)}`).join(', ')}`);
  }

  /** A backup that was made during a hold contains an earlier time. */
  protected isHeld(beforeMs: number | null, restore: { reason: string | null } | undefined): boolean {
    return beforeMs !== null && restore !== undefined && restore.reason !== null;
  }

  /** Whether a change that is applied again was lost by the history that the database is in. */
  protected isOf(history: string): boolean {
    return this.place.db.history === history && this.place.db.isCurrent;
  }

  /** The ledger that could not write, or all: what it did not get may be in none. */
  protected distrust({ streams }: Tables, ledger: string | null): void {
    for (const row of streams.values()) if ((ledger ?? row.ledger) === row.ledger) row.is_settled = false;
  }

  async #hold({ history, doubt, gap }: LedgerFindings): Promise<void> {
    const { db, note } = this.place;
    const isHeld = await db.transaction(this.machine, () => {
      const { tables } = db;
      if (db.history !== history || tables.settledHistory === history) return false;
      if (gap) this.distrust(tables, gap.ledger);
      const before = tables.restores.find((one) => one.history === history);
      if (this.isHeld(tables.restoredBeforeMs, before)) return false;
      tables.restoredBeforeMs = db.nowMs;
      if (!before) tables.restores.push({ history, reason: doubt, isSettled: false, decidedMs: null });
      else Object.assign(before, { reason: doubt, isSettled: false, decidedMs: null });
      return true;
    });
    if (isHeld) this.holds++;
    note(`${this.name} holds what was issued before: ${doubt}`);
  }
}
