import type { InvalidationKind } from '@latchkey/contracts';
import type { Machine } from './machine.js';
import { Away, type Line, passage } from './network.js';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';
import { Facts } from './town.js';

/** How long a client of the database waits for an answer before it calls the connection broken. */
const QUERY_TIMEOUT_MS = 400;
/** How long PostgreSQL takes to notice that a client died in the middle of a transaction. */
const CLIENT_LOST_MS = 300;

export interface InvalidationRow {
  readonly id: string;
  readonly kind: InvalidationKind;
  readonly subject: string;
  readonly cut: boolean;
  readonly xid: bigint;
  readonly createdMs: number;
}

export interface LeaseRow {
  readonly verifierId: string;
  /** Hash of the claim, hex; null: a verifier of version 0.1, or nobody. */
  readonly claim: string | null;
  readonly keySalt: Uint8Array | null;
  readonly name: string;
  readonly caller: string;
  readonly holder: string;
  readonly released: boolean;
  readonly ended: boolean;
  readonly renewal: bigint;
  readonly cursor: { readonly log: string; readonly xid: bigint } | null;
  readonly leaseMs: number;
}

/** The tables that matter here: what is committed. */
export interface Tables {
  log: string;
  /** Which database the log was begun in, and the highest xid whose rows have been removed. */
  incarnation: number;
  removedTo: bigint;
  /** Changes committed, by the ids of their invalidations. */
  changes: Set<string>;
  facts: Facts;
  leases: Map<string, LeaseRow>;
  invalidations: InvalidationRow[];
}

/** A transaction: what it wrote becomes visible all at once, when it commits. */
export interface Transaction {
  /** `pg_current_xact_id()`. */
  readonly xid: bigint;
  write(change: (tables: Tables) => void): void;
}

/**
 * PostgreSQL as the protocol sees it: transactions with xids that commit in any order, statements that see one
 * snapshot, and a line to it that may be slow or cut, so that a client may not know whether its commit happened.
 */
export class Database {
  readonly line: Line = { cut: false, loss: 0, twice: 0, slowMs: 3 };
  tables: Tables;
  /** Changes with every restored backup. */
  incarnation = 1;
  readonly #random: Random;
  readonly #schedule: Schedule;
  #nextXid = 700n;
  #running = new Set<bigint>();
  #backup: { tables: Tables; nextXid: bigint } | undefined;

  constructor(random: Random, schedule: Schedule) {
    this.#random = random;
    this.#schedule = schedule;
    const log = random.uuid(schedule.nowMs);
    this.tables = {
      log,
      incarnation: 1,
      removedTo: 0n,
      changes: new Set(),
      facts: new Facts(),
      leases: new Map(),
      invalidations: [],
    };
  }

  /** `pg_snapshot_xmin(pg_current_snapshot())`: every lower transaction has ended. */
  xmin(): bigint {
    let xmin = this.#nextXid;
    for (const xid of this.#running) if (xid < xmin) xmin = xid;
    return xmin;
  }

  takeXid(): bigint {
    return this.#nextXid++;
  }

  /** One statement: sent, run at one instant, answered. When this rejects, it may have run all the same. */
  statement<T>(client: Machine, line: Line, run: () => T): Promise<T> {
    const deliver = client.address();
    return new Promise((resolve, reject) => {
      const lost = () => deliver(QUERY_TIMEOUT_MS, () => reject(new Away('connection terminated')));
      const toMs = passage(this.#random, [this.line, line]);
      if (toMs === undefined) return lost();
      this.#schedule.after(toMs, () => {
        let answer: () => void;
        try {
          const value = run();
          answer = () => resolve(value);
        } catch (error) {
          answer = () => reject(error);
        }
        const backMs = passage(this.#random, [this.line, line]);
        if (backMs === undefined) lost();
        else deliver(backMs, answer);
      });
    });
  }

  /**
   * One transaction that writes. `body` runs once it has its xid; others may begin and commit before it does.
   * When this rejects, it may have committed all the same.
   */
  async transaction(client: Machine, line: Line, body: (tx: Transaction) => Promise<void>): Promise<void> {
    const running = this.#running;
    const xid = await this.statement(client, line, () => {
      const taken = this.takeXid();
      running.add(taken);
      return taken;
    });
    const changes: ((tables: Tables) => void)[] = [];
    const rollBack = () => running.delete(xid);
    // A client that dies or gives up leaves its transaction open until the server notices.
    const leave = () => this.#schedule.after(CLIENT_LOST_MS, rollBack);
    const alive = client.onDeath(leave);
    try {
      await body({ xid, write: (change) => void changes.push(change) });
      await this.statement(client, line, () => {
        if (!running.delete(xid) || running !== this.#running) throw new Away('the transaction was broken off');
        for (const change of changes) change(this.tables);
      });
    } catch (error) {
      leave();
      throw error;
    } finally {
      alive();
    }
  }

  /** A transaction of somebody else that stays open and holds xmin back. */
  holdXmin(ms: number): void {
    const running = this.#running;
    const xid = this.takeXid();
    running.add(xid);
    this.#schedule.after(ms, () => running.delete(xid));
  }

  /** Removes rows older than `keepMs`, at most `limit`, none that a transaction still running may precede. */
  prune(keepMs: number, limit: number): number {
    const { tables } = this;
    const sinceMs = this.#schedule.nowMs - keepMs;
    const xids = tables.invalidations.map(({ xid }) => xid).sort((a, b) => (a < b ? -1 : 1));
    const young = tables.invalidations.filter(({ createdMs }) => createdMs >= sinceMs).map(({ xid }) => xid);
    let stays = this.xmin();
    for (const xid of [...young, ...xids.slice(limit, limit + 1)]) if (xid < stays) stays = xid;
    for (const xid of xids) if (xid < stays && xid > tables.removedTo) tables.removedTo = xid;
    tables.invalidations = tables.invalidations.filter(({ xid }) => xid >= stays);
    return xids.length - tables.invalidations.length;
  }

  backUp(): void {
    this.#backup = { tables: copy(this.tables), nextXid: this.xmin() };
  }

  /** Goes back to the backup: what was committed since is gone, its xids come again, connections are broken off. */
  restore(): boolean {
    if (!this.#backup) return false;
    this.tables = copy(this.#backup.tables);
    this.#nextXid = this.#backup.nextXid;
    this.#running = new Set();
    this.incarnation++;
    return true;
  }
}

function copy({ changes, facts, leases, invalidations, ...rest }: Tables): Tables {
  return {
    ...rest,
    changes: new Set(changes),
    facts: facts.copy(),
    leases: new Map(leases),
    invalidations: [...invalidations],
  };
}
