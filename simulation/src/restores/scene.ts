import path from 'node:path';
import type { ShippedModules } from '../modules.js';
import type { Random } from '../random.js';
import type { Schedule } from '../schedule.js';
import type { Backup, Numbers, RestorableDatabase } from './database.js';
import type { Disk } from './disk.js';
import type { RestoreFault } from './faults.js';
import type { Place, TokenService } from './process.js';

const BACKUPS_MAX = 4;

/** A backup, as far as a ledger can vouch for what it lacks. */
export interface KeptBackup extends Backup {
  /** The ledger that was kept when it was made. */
  readonly era: number;
}

/** What a world consists of, and what its faults have done to it. */
export class Scene {
  readonly disks: Disk[] = [];
  readonly services: TokenService[] = [];
  readonly backups: KeptBackup[] = [];
  readonly counts = { checks: 0, allowed: 0, revoked: 0, restores: 0, holds: 0, faults: 0 };
  readonly history: string[] = [];
  violation: string | undefined;
  /** Nothing was done to a ledger, or to the database, after which somebody has to decide. */
  isIntact = true;
  /** When the database or a process last stopped, or a process started. */
  disturbedMs = 0;
  /** The database's server is stopped. */
  isMoving = false;
  /** The database is used on another server too. */
  isCopied = false;
  /** Of the ledger in its place, as far as backups know it. */
  era = 0;
  /** Until then not all processes write the ledger that is in its place now. */
  unsteadyUntilMs = 0;

  constructor(
    readonly random: Random,
    readonly schedule: Schedule,
    readonly numbers: Numbers,
    readonly db: RestorableDatabase,
    readonly modules: ShippedModules,
    readonly retention: Place['retention'],
    readonly faults: Partial<Record<RestoreFault, number>>,
    private readonly keepsHistory: boolean,
  ) {}

  get nowMs(): number {
    return this.schedule.nowMs;
  }

  /** One ledger of all processes, which nobody touched and whose disk has always worked. */
  get isVouched(): boolean {
    return this.isIntact && this.disks.length === 1;
  }

  alive(): TokenService | undefined {
    const alive = this.services.filter(({ isAlive }) => isAlive);
    return alive.length > 0 ? this.random.pick(alive) : undefined;
  }

  /** Within a time, soon more likely than late. */
  later(ms: number, what: () => void): void {
    this.schedule.after(this.random.spread(10, ms), what);
  }

  disturb(): void {
    this.disturbedMs = this.nowMs;
  }

  backUp(): void {
    this.backups.push({ ...this.db.backUp(), era: this.era });
    if (this.backups.length > BACKUPS_MAX) this.backups.shift();
  }

  /** Somebody has to decide once the database is put back to this, or is by now. */
  noteRestored({ era, takenMs }: KeptBackup): void {
    const { ledgerDays } = this.retention;
    const isForgotten = takenMs < this.db.nowMs - (ledgerDays - 1) * 24 * 3_600_000;
    if (era !== this.era || isForgotten) this.isIntact = false;
  }

  /** The ledger in the place of the one that this database has, on a disk. */
  ledgerOn(disk: Disk): string | undefined {
    return disk.ledgerIn(path.join(disk.dir, this.db.folderName));
  }

  kill(service: TokenService): void {
    if (service.isAlive) service.kill();
  }

  start(service: TokenService): void {
    if (service.isAlive) return;
    this.note(`${service.name} starts`);
    this.disturb();
    service.start();
  }

  broken(text: string): void {
    if (this.violation !== undefined) return;
    this.violation = text;
    this.note(text);
  }

  note(text: string): void {
    if (this.keepsHistory) this.history.push(`${this.nowMs.toFixed(0).padStart(8)} ${text}`);
  }
}
