import { EPOCH_MS } from './database.js';
import { type Move, RESTORES } from './faults.js';
import type { KeptBackup, Scene } from './scene.js';
import type { Tokens } from './tokens.js';

export const DOWN_MS = 20_000;
const DAY_MS = 24 * 3_600_000;
/** Fewer, and more, than after which events of before are deleted. */
const SOME_DAYS = 60;
const MANY_DAYS = 95;

/** What happens to the database: to its server, to what is in it, and to the time in which it is kept. */
export class Moves {
  readonly #scene: Scene;
  readonly #tokens: Tokens;

  constructor(scene: Scene, tokens: Tokens) {
    this.#scene = scene;
    this.#tokens = tokens;
  }

  /**
   * The server stops, and starts with something else or the same.
   * @param backup default: any
   */
  move(name: Move, backup?: KeptBackup): void {
    const { random, counts } = this.#scene;
    this.restartWith(() => {
      if (name === 'restart') return name;
      counts.restores++;
      return this.#putBack(name, backup ?? random.pick(this.#scene.backups));
    });
  }

  /** All stop, the server starts with something else, and all start together. */
  together(what: () => string = () => this.#putBack(this.#scene.random.pick(RESTORES), this.#pick())): void {
    const scene = this.#scene;
    if (scene.isMoving) return;
    for (const service of scene.services) scene.kill(service);
    this.#tokens.bothStart();
    this.restartWith(what);
    scene.later(DOWN_MS, () => {
      for (const service of scene.services) scene.start(service);
    });
  }

  /** @param what is done to it while it is stopped, and what to call that */
  restartWith(what: () => string): void {
    const scene = this.#scene;
    const { db } = scene;
    if (scene.isMoving) return;
    scene.isMoving = true;
    if (scene.nowMs < scene.unsteadyUntilMs) scene.isIntact = false;
    scene.disturb();
    this.#tokens.historyEnds();
    db.stop();
    scene.later(DOWN_MS, () => {
      scene.note(`the database starts again: ${what()}`);
      scene.disturb();
      db.start();
      scene.isMoving = false;
    });
  }

  /** Days pass, in which nobody does anything. */
  months(): void {
    const scene = this.#scene;
    const { random, db, services } = scene;
    if (scene.isMoving || scene.isCopied) return;
    const days = random.chance(0.5) ? random.spread(1, SOME_DAYS) : random.spread(SOME_DAYS, MANY_DAYS);
    // Those that go on see them pass in one moment, as after a suspension.
    const stopped = services.filter(({ isAlive }) => isAlive && random.chance(0.5));
    for (const service of stopped) service.kill();
    db.abort();
    scene.schedule.jump(days * DAY_MS);
    for (const { machine } of services) machine.stepWall(db.nowMs - machine.wallMs());
    scene.note(`${days.toFixed(1)} days have passed`);
    scene.disturb();
    this.retire();
    for (const service of stopped) scene.later(DOWN_MS, () => scene.start(service));
    if (random.chance(0.3)) scene.later(DOWN_MS, () => this.move('putBack', scene.backups[0]));
  }

  /** What AUDIT_RETENTION_MONTHS says. */
  retire(): void {
    const { retention, random, db } = this.#scene;
    if (retention.auditMonths > 0 && db.isRunning && random.chance(0.5)) db.retire(retention.auditMonths);
  }

  #pick(): KeptBackup {
    this.#scene.counts.restores++;
    return this.#scene.random.pick(this.#scene.backups);
  }

  /** @returns what to call it */
  #putBack(name: Move, backup: KeptBackup): string {
    const { db } = this.#scene;
    if (name === 'putBack') db.putBack(backup);
    else if (name === 'promote') db.promote(backup);
    else db.restoreDump(backup, name === 'otherServer');
    this.#scene.noteRestored(backup);
    this.#tokens.putBack(backup);
    const { takenMs, tables, server } = backup;
    return `${name}, from ${(takenMs - EPOCH_MS).toFixed(0)}, ${tables.events.length} events, ${server.system}`;
  }
}
