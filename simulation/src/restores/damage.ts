import path from 'node:path';
import type { Disk } from './disk.js';
import { DOWN_MS, type Moves } from './moves.js';
import type { Scene } from './scene.js';
import type { Tokens } from './tokens.js';

const DISK_MS = 30_000;
const SLOW_MS = 14_000;
const AWAY_MS = 60_000;
/** A process notices within this that its ledger is not in its place any more, and has written what the one there lacks. */
const NOTICED_MS = 25_000;
/** For so long a ledger that is not written any more counts as alive. */
const ALIVE_MS = 60_000;

type Tampering = 'lose' | 'older' | 'cut' | 'streamGone';

/** What happens to disks, to the ledgers on them, and to the settings that say where they are. */
export class Damage {
  readonly #scene: Scene;
  readonly #tokens: Tokens;
  readonly #moves: Moves;
  readonly #copies: { disk: Disk; to: string }[] = [];

  constructor(scene: Scene, tokens: Tokens, moves: Moves) {
    this.#scene = scene;
    this.#tokens = tokens;
    this.#moves = moves;
  }

  copyLedgers(): void {
    const { random } = this.#scene;
    const disk = random.pick(this.#scene.disks);
    this.#copies.push({ disk, to: disk.copy() });
  }

  full(disk: Disk): void {
    this.#fail(disk);
    this.#scene.later(DISK_MS, () => this.#repair(disk));
  }

  /** Nothing can be written when the database is put back; all start again once it can, at once or after they have noticed. */
  fullAtEnd(disk: Disk, revoke: () => void): void {
    const scene = this.#scene;
    const { random } = scene;
    this.#fail(disk);
    for (let i = 0; i < 3; i++) scene.later(2_000, revoke);
    scene.schedule.after(random.spread(1_000, 6_000), () => this.#moves.move('putBack'));
    scene.schedule.after(random.spread(4_000, 60_000), () => {
      this.#repair(disk);
      if (random.chance(0.7)) scene.later(DOWN_MS, () => this.#moves.together());
    });
  }

  slow(disk: Disk): void {
    this.#scene.note('a disk is slow');
    this.#scene.isIntact = false;
    disk.slowestMs = SLOW_MS;
    this.#scene.later(DISK_MS, () => {
      disk.slowestMs = 10;
    });
  }

  /** While no process of that ledger runs. */
  tamper(name: Tampering, disk: Disk): void {
    const scene = this.#scene;
    const { random } = scene;
    this.#stopAll(disk);
    scene.isIntact = false;
    if (name === 'lose') disk.lose();
    if (name === 'older') {
      const copies = this.#copies.filter((copy) => copy.disk === disk);
      if (copies.length > 0) disk.putBack(random.pick(copies).to);
    }
    const segments = disk.segments();
    if (name === 'cut') {
      // An end behind the last state is a limit that is documented.
      const long = segments.filter(({ file, lines }) => lines.length > 2 && disk.stated(file) >= lines.length - 1);
      if (long.length > 0) {
        const { file, lines } = random.pick(long);
        disk.cut(file, lines.slice(0, random.int(1, lines.length - 1)));
      }
    }
    if (name === 'streamGone') {
      // The newest stream is a limit that is documented.
      const streams = [...new Set(segments.map(({ stream }) => stream))].sort().slice(0, -1);
      if (streams.length > 0) disk.removeStream(random.pick(streams));
    }
    scene.note(`a ledger: ${name}`);
    this.#startAll(disk);
  }

  /**
   * The folder of the own ledger, or all of them, are moved away, and a new one is begun in its place; later they come back,
   * and the new one is kept beside them or lost.
   */
  exchange(disk: Disk): void {
    const scene = this.#scene;
    const { random, db } = scene;
    const { folderName: own } = db;
    const all = disk.folders().map((folder) => path.basename(folder));
    if (!all.includes(own)) return;
    const isStopped = random.chance(0.5);
    if (isStopped) this.#stopAll(disk);
    const from = disk.moveAway(random.chance(0.5) ? all : [own]);
    scene.note(`the folder ${own} is moved away${isStopped ? '' : ', while it is written'}`);
    this.#newEra();
    if (isStopped) this.#startAll(disk);
    if (random.chance(0.3)) return;
    scene.later(AWAY_MS, () => {
      const isStoppedAgain = random.chance(0.5);
      if (isStoppedAgain) this.#stopAll(disk);
      const aside = random.chance(0.5) ? 'aside' : undefined;
      const folder = path.join(disk.dir, own);
      const lost = disk.ledgerIn(folder);
      disk.moveBack(from, aside);
      scene.note(`the folder ${own} is back, the one in its place ${aside ? 'beside it' : 'is lost'}`);
      this.#newEra();
      if (!aside) this.#takeOver(lost, disk.ledgerIn(folder));
      if (isStoppedAgain) this.#startAll(disk);
      // A backup that is older than all of that.
      else if (random.chance(0.5))
        scene.schedule.after(2 * NOTICED_MS, () => this.#moves.move('putBack', scene.backups[0]));
    });
  }

  /** An older ledger is in the place of one that is lost: it is noticed, and then it contains what that had. */
  #takeOver(lost: string | undefined, now: string | undefined): void {
    const scene = this.#scene;
    const { services, schedule } = scene;
    const backMs = scene.nowMs;
    const look = () => {
      const isQuiet = scene.disturbedMs <= Math.max(backMs, scene.nowMs - NOTICED_MS) && !scene.isMoving;
      const isNoticed = isQuiet && services.every(({ isAlive, machine }) => isAlive && machine.running);
      if (isNoticed) this.#tokens.takeOver(lost, now);
      else schedule.after(NOTICED_MS, look);
    };
    schedule.after(NOTICED_MS, look);
  }

  /** A ledger cannot be read, for a time: one beside the own, or one that soon is, because the database is moved. */
  obstruct(disk: Disk): void {
    const scene = this.#scene;
    const { random, db } = scene;
    const folders = disk.folders();
    if (folders.length === 0) return;
    const folder = random.pick(folders);
    const isOwn = folder.endsWith(db.folderName);
    const what = random.pick(['folder', 'states'] as const);
    scene.isIntact = false;
    const undo = disk.obstruct(folder, what);
    scene.note(`${folder.slice(disk.dir.length + 1)} cannot be read: ${what}`);
    if (isOwn) this.#moves.together();
    else if (random.chance(0.5)) scene.later(DOWN_MS, () => this.#moves.together());
    scene.later(AWAY_MS, () => {
      scene.note('what could not be read can be read again');
      undo();
    });
  }

  /** From now on no ledger is kept, for a time: then one is kept where it was, or in a new folder. */
  unconfigure(): void {
    const scene = this.#scene;
    const { random, db, services, backups } = scene;
    if (services.every(({ hasLedger }) => !hasLedger)) return;
    scene.note('ledgers are removed from the settings');
    scene.isIntact = false;
    // Nothing tells a backup from before the first ledger from one of an installation without any.
    const known = backups.filter(({ tables }) => [...tables.streams.values()].some((row) => row.is_settled));
    backups.splice(0, backups.length, ...known, { ...db.backUp(), era: scene.era });
    this.#configure(false);
    if (random.chance(0.3)) return;
    scene.later(AWAY_MS, () => {
      const isNew = random.chance(0.4);
      scene.note(`ledgers are in the settings again, ${isNew ? 'in new folders' : 'where they were'}`);
      for (const disk of scene.disks) if (isNew) this.#stopAll(disk);
      for (const disk of scene.disks) if (isNew) disk.configureAnew();
      this.#configure(true);
    });
  }

  #configure(hasLedger: boolean): void {
    const scene = this.#scene;
    scene.disturb();
    scene.era++;
    for (const service of scene.services) {
      service.hasLedger = hasLedger;
      scene.kill(service);
      scene.start(service);
    }
  }

  /** Backups from before know nothing of the ledger that is there now. */
  #newEra(): void {
    const scene = this.#scene;
    const { db } = scene;
    scene.era++;
    if (!db.isRunning || !db.isCurrent || db.history !== db.tables.settledHistory) scene.isIntact = false;
    scene.unsteadyUntilMs = scene.nowMs + NOTICED_MS + ALIVE_MS;
    scene.disturb();
  }

  #fail(disk: Disk): void {
    this.#scene.note('a disk is full');
    this.#scene.isIntact = false;
    disk.isFailing = true;
  }

  #repair(disk: Disk): void {
    if (!disk.isFailing) return;
    this.#scene.note('a disk works again');
    disk.repair(this.#scene.nowMs);
    this.#tokens.repaired();
  }

  #stopAll(disk: Disk): void {
    this.#scene.disturb();
    for (const service of this.#scene.services) if (service.disk === disk) this.#scene.kill(service);
  }

  #startAll(disk: Disk): void {
    const scene = this.#scene;
    for (const service of scene.services) if (service.disk === disk) scene.later(DOWN_MS, () => scene.start(service));
  }
}
