import path from 'node:path';
import { RestorableDatabase } from './database.js';
import type { Moves } from './moves.js';
import { type Place, TokenService } from './process.js';
import type { Scene } from './scene.js';
import type { Token, Tokens } from './tokens.js';

/** Of what is used elsewhere for less than that, it is certain that it takes the place of this one. */
const SHORT_MS = 25_000;
const LONG_MS = 500_000;
/** For longer, nobody can tell whose changes a ledger has; with how late it says until when it was written. */
const APART_MS = 100_000;

/** The database, as it is used on another server. */
interface Copy {
  readonly db: RestorableDatabase;
  readonly service: TokenService;
  readonly sinceMs: number;
  /** What was revoked there. */
  readonly revoked: Set<Token>;
}

/** The same database on two servers at once, whose ledgers are beside each other. */
export class Copies {
  readonly #scene: Scene;
  readonly #tokens: Tokens;
  readonly #moves: Moves;
  readonly #place: Place;
  readonly #Service: typeof TokenService;
  #copy: Copy | undefined;

  constructor(scene: Scene, tokens: Tokens, moves: Moves, place: Place, Service = TokenService) {
    this.#scene = scene;
    this.#tokens = tokens;
    this.#moves = moves;
    this.#place = place;
    this.#Service = Service;
  }

  begin(isLong: boolean): void {
    const scene = this.#scene;
    const { random, schedule, numbers, disks } = scene;
    if (this.#copy || scene.isMoving) return;
    scene.backUp();
    const backup = isLong && random.chance(0.3) ? random.pick(scene.backups) : scene.backups.at(-1)!;
    const db = new RestorableDatabase(random, schedule, numbers);
    db.restoreDump(backup, true);
    const silent = () => undefined;
    const place = { ...this.#place, db, onCommit: silent, onAccept: silent };
    const service = new this.#Service(`elsewhere ${numbers.systems}`, place, disks[0]!);
    service.machine.stepWall(db.nowMs - service.machine.wallMs());
    const copy = { db, service, sinceMs: scene.nowMs, revoked: new Set<Token>() };
    this.#copy = copy;
    scene.isCopied = true;
    scene.note(`the database is used on another server too: ${service.name}`);
    scene.noteRestored(backup);
    if (isLong) scene.isIntact = false;
    service.start();
    const forMs = isLong ? random.spread(SHORT_MS, LONG_MS) : random.spread(50, SHORT_MS);
    for (let i = random.int(1, 4); i > 0; i--)
      schedule.after(random.float() * forMs, () => this.#copy === copy && this.#revoke(copy));
    schedule.after(forMs, () => this.#copy === copy && this.end());
  }

  /** Nobody uses it any more; then that may be dumped, and become this one. */
  end(how = this.#scene.random.pick(['left', 'left', 'started', 'dumped', 'moved'] as const)): void {
    const copy = this.#copy;
    if (!copy) return;
    const { random, db } = this.#scene;
    this.#copy = undefined;
    this.#scene.isCopied = false;
    this.#scene.note(`${copy.service.name} ends: ${how}`);
    const isTogether = this.#scene.nowMs - copy.sinceMs < APART_MS;
    if (isTogether || how === 'dumped' || how === 'moved') for (const token of copy.revoked) token.isUncertain = true;
    if (random.chance(0.5)) copy.service.kill();
    else copy.service.stop().catch((error: Error) => this.#scene.broken(`stopping failed: ${error.stack}`));
    if (how === 'left') return;
    this.#moves.together(() => {
      copy.service.kill();
      const backup = copy.db.backUp();
      if (how === 'dumped') db.restoreDump(backup, false);
      if (how === 'moved') db.putBack(backup);
      if (how !== 'started') this.#tokens.putBack(backup);
      return how;
    });
  }

  remove(): void {
    this.#copy?.service.kill();
  }

  #revoke(copy: Copy): void {
    const { random } = this.#scene;
    const token = random.pick(this.#tokens.all);
    copy.revoked.add(token);
    copy.service.change(token.id, 'token.revoked').then(
      (ledger) => {
        this.#scene.note(`token.revoked ${token.name} answered by ${copy.service.name}, ledger ${ledger}`);
        const { disk } = copy.service;
        if (ledger === 'written')
          this.#tokens.revokedElsewhere(token, disk.ledgerIn(path.join(disk.dir, copy.db.folderName)));
      },
      () => undefined,
    );
  }
}
