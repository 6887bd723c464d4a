import type { Backup, RestorableDatabase } from './database.js';
import type { TokenService } from './process.js';
import type { Scene } from './scene.js';

export interface Token {
  readonly id: string;
  readonly name: string;
  readonly createdMs: number;
  /** An answer said that this was done and is in the ledger. */
  isRevoked: boolean;
  isDisabled: boolean;
  /** When that was answered last. */
  claimedMs: number;
  /** The ledger that has it, of the process that answered. */
  ledger: string | undefined;
  /** It is in no ledger: the database alone knows of it, until it is put back once more. */
  isInDatabaseOnly: boolean;
  /** Somebody has tried to enable it: from then on nothing is claimed of its being disabled. */
  isEnabling: boolean;
  /** Something may have taken rights from it that no answer told of. */
  isUncertain: boolean;
  /** An administrator has accepted a database that had forgotten that. */
  isExcused: boolean;
}

/** A revocation whose receipt said `failed` because the disk did. */
interface Failed {
  readonly token: Token;
  readonly by: TokenService;
  readonly life: number;
  readonly history: string;
  /** Its history has ended meanwhile. */
  isLost: boolean;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Within this, another process that runs has followed a change into its ledger, and the database has a mark of it. */
const FOLLOWED_MS = 5_000;
/** Between two comparisons of a process, while it begins to hold what was issued before. */
const TOLD_MS = 2_000;

/** What answers have said of each token, and so what must hold of it. */
export class Tokens {
  readonly all: Token[] = [];
  /** How often all tokens were revoked, or may have been. */
  everything = 0;
  /** Revoked on another server, at which the database was used at the same time; with the ledger there. */
  readonly #elsewhere = new Map<Token, string | undefined>();
  #failed: Failed[] = [];
  readonly #scene: Scene;

  constructor(scene: Scene) {
    this.#scene = scene;
  }

  issued(id: string, name: string, createdMs: number, isUncertain: boolean): void {
    const state = { isRevoked: false, isDisabled: false, isEnabling: false, isExcused: false, isInDatabaseOnly: false };
    this.all.push({ id, name, createdMs, isUncertain, claimedMs: 0, ledger: undefined, ...state });
  }

  isForbidden({ isRevoked, isDisabled, isExcused }: Token): boolean {
    return (isRevoked || isDisabled) && !isExcused;
  }

  /** It was answered, and is in the ledger. */
  written(token: Token, action: 'token.revoked' | 'token.disabled' | 'token.enabled', by: TokenService): void {
    const ledger = this.#scene.ledgerOn(by.disk);
    if (action === 'token.revoked') this.#claim(() => this.#revoked(token, ledger));
    else if (action === 'token.disabled')
      this.#claim(() => {
        // Of both, either can have been the last.
        if (!token.isEnabling) Object.assign(token, { isDisabled: true, claimedMs: this.#scene.nowMs, ledger });
      });
  }

  /** It was answered, while the disk failed. */
  failed(token: Token, by: TokenService): void {
    const { disks, db } = this.#scene;
    if (disks.length > 1) return;
    this.#failed.push({ token, by, life: by.life, history: db.history, isLost: false });
  }

  /** The server of the database stops: what the disk has not got by now, it never gets from that history. */
  historyEnds(): void {
    this.#failed = this.#failed.filter(({ by, life, isLost }) => {
      return (isLost || by.disk.isFailing) && by.isAlive && by.life === life;
    });
    for (const one of this.#failed) one.isLost = true;
  }

  /** The disk works again: what was missed is written now. */
  repaired(): void {
    this.#failed = this.#failed.filter(({ isLost, token, by, history }) => {
      if (!isLost)
        this.#whenFollowed(() => {
          const { db, services } = this.#scene;
          if (db.history === history && services.every(({ machine }) => machine.running))
            this.#revoked(token, this.#scene.ledgerOn(by.disk));
        });
      return isLost;
    });
  }

  /**
   * A process that lived when its disk failed has seen what became of the database; unless another one, which does not know
   * that anything was missed, has settled that before. Once its disk works, it has told the ledger.
   */
  accepted(by: TokenService): void {
    const { db, nowMs } = this.#scene;
    const isSettled = db.tables.settledHistory === db.history;
    const isTold = !by.disk.isFailing && nowMs > by.disk.repairedMs + TOLD_MS;
    for (const one of this.#failed) {
      if (!one.isLost || one.by !== by || one.life !== by.life) continue;
      if (!isSettled || this.#scene.services.length === 1) this.#revoked(one.token, undefined, true);
      if (isTold) one.token.isInDatabaseOnly = false;
    }
  }

  revokedElsewhere(token: Token, ledger: string | undefined): void {
    if (this.#scene.disks.length === 1) this.#elsewhere.set(token, ledger);
  }

  /** PostgreSQL and all processes start again: then the ledger of that server is found. */
  bothStart(): void {
    const there = this.#there();
    for (const [token, ledger] of this.#elsewhere) if (there.has(ledger)) this.#revoked(token, ledger);
    this.#elsewhere.clear();
  }

  /** An administrator accepts what the database says. */
  excuse({ tables }: RestorableDatabase): void {
    this.#elsewhere.clear();
    this.#failed = this.#failed.filter(({ isLost }) => !isLost);
    for (const token of this.all) if (tables.tokens.get(token.id)?.isRevoked === false) token.isExcused = true;
  }

  /** The database is put back. */
  putBack({ tables }: Backup): void {
    const known = new Set([...tables.streams.values()].map(({ ledger }) => ledger));
    const there = this.#there();
    const keptMs = this.#scene.nowMs - this.#scene.retention.ledgerDays * DAY_MS + HOUR_MS;
    for (const token of this.all) {
      const { ledger, claimedMs, isInDatabaseOnly } = token;
      // What is there is as old as the backup, which knows nothing of the ledger that has it.
      const isGone = ledger !== undefined && !known.has(ledger) && !there.has(ledger);
      // LEDGER_RETENTION_DAYS is at least the age of the oldest backup that one would restore.
      const isForgotten = claimedMs < keptMs;
      if (isGone || isForgotten || isInDatabaseOnly)
        Object.assign(token, { isRevoked: false, isDisabled: false, isInDatabaseOnly: false });
    }
  }

  /** What one ledger has, another has too. */
  takeOver(from: string | undefined, to: string | undefined): void {
    for (const token of this.all) if (token.ledger !== undefined && token.ledger === from) token.ledger = to;
  }

  everythingRevoked(): void {
    this.everything++;
    for (const token of this.all) token.isUncertain = true;
  }

  /** Ids of the ledgers that there are. */
  #there(): Set<string | undefined> {
    return new Set(this.#scene.disks.flatMap((disk) => [...disk.ledgers()]));
  }

  #revoked(token: Token, ledger: string | undefined, isInDatabaseOnly = false): void {
    const { nowMs: claimedMs } = this.#scene;
    Object.assign(token, { isRevoked: true, isExcused: false, isUncertain: true, claimedMs, ledger, isInDatabaseOnly });
  }

  /** Of several ledgers, the others have it a second later: until then it depends on the one of the process that answered. */
  #claim(claim: () => void): void {
    if (this.#scene.disks.length === 1) claim();
    else this.#whenFollowed(claim);
  }

  #whenFollowed(then: () => void): void {
    const scene = this.#scene;
    const sinceMs = scene.nowMs;
    scene.schedule.after(FOLLOWED_MS, () => {
      if (scene.disturbedMs < sinceMs - FOLLOWED_MS && scene.services.every(({ isAlive }) => isAlive)) then();
    });
  }
}
