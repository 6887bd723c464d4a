import type { InvalidationKind } from '@latchkey/contracts';
import type { Rights } from './model.js';
import type { Line } from './network.js';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';

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
  /** Hash of the claim, hex; null: a verifier of version 0.1, or an unowned lease. */
  readonly claim: string | null;
  readonly keySalt: Uint8Array | null;
  /** As given with the last renewals, newest first. */
  readonly nonces: readonly string[];
  /** Made for a verifier whose row was gone: what it presents may be older than the row. */
  readonly isReborn: boolean;
  readonly name: string;
  readonly caller: string;
  readonly holder: string;
  readonly released: boolean;
  readonly ended: boolean;
  readonly renewal: bigint;
  readonly cursor: { readonly log: string; readonly xid: bigint } | null;
  readonly leaseMs: number;
}

/** The tables that are simulated: what is committed. */
export interface Tables {
  log: string;
  /** In which database the log was begun or continued, and the start of its server that was noticed last. */
  incarnation: string;
  startedAt: number;
  /** Under which start of the server the log was begun. */
  begunIn: number;
  longestLeaseMs: number;
  /** The highest xid whose rows have been removed. */
  removedTo: bigint;
  /** Changes committed, by the ids of their invalidations. */
  changes: Set<string>;
  rights: Rights;
  leases: Map<string, LeaseRow>;
  invalidations: InvalidationRow[];
}

/** What a server's disk, or its stand-by's, holds. */
export interface Folder {
  readonly tables: Tables;
  readonly nextXid: bigint;
  readonly system: string;
  readonly timeline: number;
}

/** A hung commit ends, with a warning when the wait for the stand-by was cancelled. */
type Ending = (isWarned: boolean) => void;

/** Shares of hung commits whose wait is cancelled, and how soon. */
const CANCELLED = 0.3;
const CANCELLED_AFTER_MS = 300;

/**
 * One PostgreSQL server: transactions with xids that commit in any order, statements that see one snapshot, and commits
 * that wait for the stand-by.
 */
export class Server {
  readonly line: Line = { cut: false, loss: 0, twice: 0, slowMs: 3 };
  tables: Tables;
  system: string;
  timeline: number;
  isAlive = true;
  /** The postmaster's start; connections of an earlier one are gone. */
  started: number;
  readonly #random: Random;
  readonly #schedule: Schedule;
  #nextXid: bigint;
  #running = new Set<bigint>();
  #highestCommitted: bigint;
  /** What the stand-by has, while it has lost touch; then commits hang. */
  #standBy: Folder | undefined;
  readonly #hanging = new Set<Ending>();

  constructor(random: Random, schedule: Schedule, folder: Folder, started: number) {
    this.#random = random;
    this.#schedule = schedule;
    this.tables = folder.tables;
    this.system = folder.system;
    this.timeline = folder.timeline;
    this.#nextXid = folder.nextXid;
    this.#highestCommitted = folder.nextXid - 1n;
    this.started = started;
  }

  get incarnation(): string {
    return `${this.system}/${this.timeline}`;
  }

  /** `pg_snapshot_xmin(pg_current_snapshot())`: every lower transaction has ended. */
  xmin(): bigint {
    let xmin = this.#nextXid;
    for (const xid of this.#running) if (xid < xmin) xmin = xid;
    return xmin;
  }

  /** The xid of a transaction that commits at this instant. */
  takeXid(): bigint {
    const xid = this.#nextXid++;
    this.#highestCommitted = xid;
    return xid;
  }

  /** Begins a transaction; `end` returns whether it was still open. */
  begin(): { readonly xid: bigint; readonly end: (isCommitted: boolean) => boolean } {
    const running = this.#running;
    const xid = this.#nextXid++;
    running.add(xid);
    return {
      xid,
      end: (isCommitted) => {
        const wasOpen = running.delete(xid) && running === this.#running;
        if (wasOpen && isCommitted && xid > this.#highestCommitted) this.#highestCommitted = xid;
        return wasOpen;
      },
    };
  }

  /** Another client's transaction, which stays open and holds xmin back. */
  holdXmin(ms: number): void {
    const { end } = this.begin();
    this.#schedule.after(ms, () => end(false));
  }

  /** Commits: at once, or when the stand-by is back, or with a warning when the wait is cancelled, or never. */
  commit(end: Ending, onHang: () => void): void {
    if (!this.#standBy) {
      end(false);
      return;
    }
    onHang();
    this.#hanging.add(end);
    if (this.#random.chance(CANCELLED))
      this.#schedule.after(this.#random.spread(1, CANCELLED_AFTER_MS), () => {
        if (this.#hanging.delete(end)) end(true);
      });
  }

  /** From now on the stand-by receives nothing, and commits hang. */
  loseStandBy(): void {
    this.#standBy ??= this.folder();
  }

  /** The stand-by has caught up, and what hung goes on. */
  findStandBy(): void {
    this.#standBy = undefined;
    const ends = [...this.#hanging];
    this.#hanging.clear();
    for (const end of ends) end(false);
  }

  /** What the stand-by has: all that has been committed without a warning. */
  standBy(): Folder {
    return this.#standBy ?? this.folder();
  }

  /** All that is committed here; xids taken since come again where it is put back. */
  folder(): Folder {
    const xmin = this.xmin();
    const nextXid = xmin > this.#highestCommitted ? xmin : this.#highestCommitted + 1n;
    return { tables: copy(this.tables), nextXid, system: this.system, timeline: this.timeline };
  }

  /** The postmaster is restarted, perhaps with another folder: connections and open transactions are gone. */
  restart(started: number, folder?: Folder): void {
    this.started = started;
    // A crash ends the wait for the stand-by as well: what had been written stays, and no client was notified.
    for (const end of this.#hanging) if (!folder && this.#random.chance(0.5)) end(true);
    this.#hanging.clear();
    this.#running = new Set();
    if (!folder) return;
    this.#standBy = undefined;
    this.tables = copy(folder.tables);
    this.#nextXid = folder.nextXid;
    this.#highestCommitted = folder.nextXid - 1n;
    this.system = folder.system;
    this.timeline = folder.timeline;
  }

  die(): void {
    this.isAlive = false;
    this.#hanging.clear();
  }

  /** Removes rows older than `retentionMs`, at most `limit`, none that a transaction still running may precede. */
  prune(retentionMs: number, limit: number): number {
    const { tables } = this;
    const sinceMs = this.#schedule.nowMs - retentionMs;
    const xids = tables.invalidations.map(({ xid }) => xid).sort((a, b) => (a < b ? -1 : 1));
    const young = tables.invalidations.filter(({ createdMs }) => createdMs >= sinceMs).map(({ xid }) => xid);
    let stays = this.xmin();
    for (const xid of [...young, ...xids.slice(limit, limit + 1)]) if (xid < stays) stays = xid;
    for (const xid of xids) if (xid < stays && xid > tables.removedTo) tables.removedTo = xid;
    tables.invalidations = tables.invalidations.filter(({ xid }) => xid >= stays);
    return xids.length - tables.invalidations.length;
  }
}

export function copy({ changes, rights, leases, invalidations, ...rest }: Tables): Tables {
  return {
    ...rest,
    changes: new Set(changes),
    rights: rights.copy(),
    leases: new Map(leases),
    invalidations: [...invalidations],
  };
}
