import { Rights } from './model.js';
import type { Line } from './network.js';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';
import { copy, type Folder, Server, type Tables } from './server.js';

/**
 * PostgreSQL as its operators see it: one primary, at times an old one that was deposed and runs on, and a backup.
 */
export class Database {
  primary: Server;
  /** Deposed primaries that can still be reached. */
  deposed: Server[] = [];
  readonly #random: Random;
  readonly #schedule: Schedule;
  #backup: Folder | undefined;
  #starts = 1;
  #timelines = 1;
  #systems = 1;

  constructor(random: Random, schedule: Schedule) {
    this.#random = random;
    this.#schedule = schedule;
    const tables: Tables = {
      log: random.uuid(schedule.nowMs),
      incarnation: '1/1',
      startedAt: 1,
      begunIn: 1,
      longestLeaseMs: 0,
      removedTo: 0n,
      changes: new Set(),
      rights: new Rights(),
      leases: new Map(),
      invalidations: [],
    };
    this.primary = new Server(random, schedule, { tables, nextXid: 700n, system: '1', timeline: 1 }, 1);
  }

  get tables(): Tables {
    return this.primary.tables;
  }

  get line(): Line {
    return this.primary.line;
  }

  /** The server of a new connection: the primary, or one that was deposed, while it still runs. */
  route(): Server {
    return this.deposed.length > 0 && this.#random.chance(0.5) ? this.#random.pick(this.deposed) : this.primary;
  }

  /** The stand-by takes over; the old primary is not notified, and runs on. */
  promote(): void {
    const old = this.primary;
    old.loseStandBy();
    const { tables, ...folder } = old.standBy();
    this.#timelines = Math.max(this.#timelines, folder.timeline) + 1;
    const promoted = { ...folder, tables: copy(tables), timeline: this.#timelines };
    this.primary = new Server(this.#random, this.#schedule, promoted, ++this.#starts);
    this.deposed.push(old);
  }

  /** Kills every deposed primary. */
  fence(): void {
    for (const server of this.deposed) server.die();
    this.deposed = [];
  }

  restart(): void {
    this.primary.restart(++this.#starts);
  }

  backUp(): void {
    this.#backup = this.primary.folder();
  }

  /**
   * Goes back to the backup: what was committed since is gone, its xids come again, connections are broken off. On a
   * timeline of its own, or (`elsewhere`) in another system, whose xids may be lower than those in the tables.
   * @param longestLeaseMs the longest ever in force, which an operator has to see to when restoring
   */
  restore(longestLeaseMs: number, elsewhere: boolean): boolean {
    if (!this.#backup) return false;
    const folder = elsewhere
      ? { ...this.#backup, system: String(++this.#systems), timeline: 1, nextXid: 1n + this.#backup.nextXid / 2n }
      : { ...this.#backup, timeline: ++this.#timelines };
    this.#putBack(folder, longestLeaseMs);
    return true;
  }

  /**
   * The same with the folder itself, so that only the start of the server shows it.
   * @returns false when the backup is of another timeline or system
   */
  restoreInPlace(longestLeaseMs: number): boolean {
    const { primary } = this;
    if (this.#backup?.system !== primary.system || this.#backup.timeline !== primary.timeline) return false;
    this.#putBack(this.#backup, longestLeaseMs);
    return true;
  }

  /**
   * Puts an old folder in place of the present one.
   * @returns puts the present one back, as it was; returns false when there is another database by then
   */
  swap(longestLeaseMs: number): (() => boolean) | undefined {
    const { primary } = this;
    const present = primary.folder();
    if (!this.restoreInPlace(longestLeaseMs)) return undefined;
    return () => {
      const { system, timeline } = this.primary;
      if (this.primary !== primary || system !== present.system || timeline !== present.timeline) return false;
      this.#putBack(present, longestLeaseMs);
      return true;
    };
  }

  #putBack(folder: Folder, longestLeaseMs: number): void {
    this.primary.restart(++this.#starts, folder);
    const { tables } = this.primary;
    tables.longestLeaseMs = Math.max(tables.longestLeaseMs, longestLeaseMs);
  }
}
