import { rmSync } from 'node:fs';
import type { ShippedModules } from '../modules.js';
import { Unavailable } from '../network.js';
import { Random } from '../random.js';
import { Schedule } from '../schedule.js';
import { shipped } from '../shipped.js';
import { type Backup, EPOCH_MS, RestorableDatabase } from './database.js';
import { addStranger, Disk } from './disk.js';
import { KEY, type Place, TokenService, type Verdict } from './process.js';

export const FAULTS = {
  /** Of processes. */
  kill: 4,
  stop: 2,
  pause: 1,
  /** All stop, the database is put back meanwhile, and all start together. */
  together: 2,
  /** Of the database. */
  restart: 3,
  putBack: 4,
  dump: 2,
  otherServer: 2,
  promote: 2,
  /** Of the disk that a ledger is on. */
  full: 2,
  slow: 1,
  /** Of a ledger. */
  lose: 1,
  older: 1,
  cut: 1,
  streamGone: 1,
  /** Of the settings. */
  unconfigured: 1,
} as const;
export type RestoreFault = keyof typeof FAULTS;
/** A ledger that is all there vouches: after these nobody has to decide. */
export const BENIGN: readonly RestoreFault[] = [
  'kill',
  'stop',
  'pause',
  'together',
  'restart',
  'putBack',
  'dump',
  'otherServer',
  'promote',
];

export interface RestoreWorldOptions {
  readonly seed: number;
  /** How many things happen. Default 120. */
  readonly steps?: number;
  readonly modules?: ShippedModules;
  /** The process, with what it does in PostgreSQL. */
  readonly Service?: typeof TokenService;
  /** By default each world draws its own. */
  readonly faults?: readonly RestoreFault[] | undefined;
  /** Default: as drawn. */
  readonly isShared?: boolean;
  readonly history?: boolean;
}

export interface RestoreOutcome {
  readonly seed: number;
  /** The first broken invariant, in a sentence; undefined when all held. */
  readonly violation: string | undefined;
  readonly history: readonly string[];
  readonly counts: {
    checks: number;
    allowed: number;
    revoked: number;
    restores: number;
    holds: number;
    faults: number;
  };
}

interface Token {
  readonly id: string;
  readonly name: string;
  readonly createdMs: number;
  /** An answer said that this was done and is in the ledger. */
  isRevoked: boolean;
  isDisabled: boolean;
  /** Somebody has tried to enable it: from then on nothing is claimed of its being disabled. */
  isEnabling: boolean;
  /** Something may have taken rights from it that no answer told of. */
  isUncertain: boolean;
  /** An administrator has accepted a database that had forgotten that. */
  isExcused: boolean;
}

class Violation extends Error {}

const STEPS = 120;
const BACKUPS_MAX = 4;
/** Within this, another process that runs has followed a change into its ledger, and the database has a mark of it. */
const FOLLOWED_MS = 5_000;
const DOWN_MS = 20_000;
const PAUSE_MS = 200_000;
const DISK_MS = 30_000;
const SLOW_MS = 14_000;
/** Longer than the longest wait for another ledger, twice. */
const SETTLES_MS = 40_000;

/** Runs one world of a database that is put back, and its ledgers. The same options give the same outcome. */
export function simulateRestores(options: RestoreWorldOptions): Promise<RestoreOutcome> {
  return new RestoreWorld(options).run();
}

class RestoreWorld {
  readonly #options: RestoreWorldOptions;
  readonly #random: Random;
  readonly #schedule: Schedule;
  readonly #db: RestorableDatabase;
  readonly #disks: Disk[] = [];
  readonly #services: TokenService[] = [];
  readonly #tokens: Token[] = [];
  readonly #backups: Backup[] = [];
  readonly #copies: { disk: Disk; to: string }[] = [];
  readonly #faults: Record<string, number> = {};
  readonly #history: string[] = [];
  readonly #counts = { checks: 0, allowed: 0, revoked: 0, restores: 0, holds: 0, faults: 0 };
  /** Of the database's server. */
  #isMoving = false;
  #issued = 0;
  /** How often all tokens were revoked, or may have been. */
  #everything = 0;
  /** When the database or a process last stopped, or a process started. */
  #disturbedMs = 0;
  #violation: string | undefined;
  /** No ledger was touched by others. */
  #isIntact = true;

  constructor(options: RestoreWorldOptions) {
    const { seed, faults, modules = shipped, Service = TokenService } = options;
    this.#options = options;
    const random = new Random(seed);
    this.#random = random;
    this.#schedule = new Schedule(random);
    this.#db = new RestorableDatabase(random, this.#schedule);
    const names = (faults ?? Object.keys(FAULTS)) as RestoreFault[];
    for (const name of names) if (faults || random.chance(0.6)) this.#faults[name] = FAULTS[name];
    const services = random.int(1, 2);
    const isShared = options.isShared ?? random.chance(0.5);
    const place: Place = {
      random,
      schedule: this.#schedule,
      db: this.#db,
      modules,
      note: (text) => this.#note(text),
      onEverything: () => this.#everythingRevoked(),
      onCommit: () => this.#strike(0.1),
    };
    for (let i = 0; i < services; i++) {
      if (i === 0 || !isShared) this.#disks.push(new Disk());
      if (i === 0) addStranger(this.#disks[0]!, modules.ledgerWork, KEY);
      this.#services.push(new Service(`token-service ${i}`, place, this.#disks.at(-1)!));
    }
  }

  async run(): Promise<RestoreOutcome> {
    try {
      await this.#live();
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      this.#violation ??= error.message;
    } finally {
      for (const service of this.#services) if (service.isAlive) service.kill();
      for (const disk of this.#disks) disk.remove();
      for (const { to } of this.#copies) rmSync(to, { recursive: true, force: true });
    }
    const { violation, history } = { violation: this.#violation, history: this.#history };
    return { seed: this.#options.seed, violation, history, counts: this.#counts };
  }

  async #live(): Promise<void> {
    const random = this.#random;
    // Of before the first start, as an old version's: no ledger vouches for that.
    if (this.#faults['lose']) this.#backUp();
    for (const service of this.#services) service.start();
    await this.#pass(2_000);
    for (let i = 0; i < 4; i++) this.#issue();
    await this.#pass(2_000);
    this.#backUp();
    const pace = random.pick([1, 1, 5, 20]);
    for (let step = 0; step < (this.#options.steps ?? STEPS); step++) {
      this.#act();
      await this.#pass(random.spread(1, 1_500) * pace);
    }
    await this.#recover();
  }

  async #pass(ms: number): Promise<void> {
    const untilMs = this.#schedule.nowMs + ms;
    while (await this.#schedule.step(untilMs)) if (this.#violation !== undefined) throw new Violation(this.#violation);
  }

  #act(): void {
    const random = this.#random;
    const isFaulty = Object.keys(this.#faults).length > 0;
    switch (
      random.weighted({ check: 12, revoke: 6, disable: 2, issue: 4, backUp: 2, settle: 1, fault: isFaulty ? 4 : 0 })
    ) {
      case 'check':
        for (const token of this.#tokens) this.#check(random.pick(this.#services), token);
        return;
      case 'revoke':
        this.#change('token.revoked');
        return;
      case 'disable':
        this.#change(random.pick(['token.disabled', 'token.enabled']));
        return;
      case 'issue':
        this.#issue();
        return;
      case 'backUp':
        this.#backUp();
        return;
      case 'settle':
        this.#settle(random.pick(['accept', 'revoke']));
        return;
      case 'fault':
        this.#fault(random.weighted(this.#faults) as RestoreFault);
        return;
    }
  }

  /** All faults end; then everything is answered, at the latest once an administrator has decided. */
  async #recover(): Promise<void> {
    this.#note('all faults end');
    for (const key of Object.keys(this.#faults)) delete this.#faults[key];
    for (const service of this.#services) service.machine.resume();
    await this.#pass(DISK_MS + DOWN_MS);
    for (const disk of this.#disks) Object.assign(disk, { isFailing: false, slowestMs: 10 });
    for (const service of this.#services) if (!service.isAlive) service.start();
    await this.#pass(SETTLES_MS);
    this.#settle('accept');
    await this.#pass(SETTLES_MS);
    await this.#mustBeAnswered('long after all faults');
    this.#move('restart');
    await this.#pass(DOWN_MS + SETTLES_MS);
    await this.#mustBeAnswered('after a mere restart of the database');
  }

  async #mustBeAnswered(when: string): Promise<void> {
    for (const service of this.#services)
      for (const token of this.#tokens) {
        const row = this.#db.tables.tokens.get(token.id);
        const verdict = await this.#verdictOf(service, token);
        const isGood = row !== undefined && !row.isRevoked && !row.isDisabled;
        if (isGood && verdict !== 'allowed')
          this.#broken(`${service.name} answers ${verdict} for ${token.name}, which is good, ${when}`);
        const isTaken = row?.isRevoked && !token.isUncertain;
        if (isTaken) this.#broken(`${token.name} is revoked, and nobody has revoked it`);
      }
  }

  /** Lets time pass until it is there. */
  async #verdictOf(service: TokenService, token: Token): Promise<Verdict | 'unavailable'> {
    let verdict: Verdict | 'unavailable' | undefined;
    this.#check(service, token, (given) => {
      verdict = given;
    });
    for (let waited = 0; verdict === undefined && waited < 100; waited++) await this.#pass(20);
    return verdict ?? 'unavailable';
  }

  #check(
    service: TokenService,
    token: Token,
    then: (verdict: Verdict | 'unavailable') => void = () => undefined,
  ): void {
    if (!service.isAlive) return;
    const { isRevoked, isDisabled, isExcused } = token;
    const isForbidden = (isRevoked || isDisabled) && !isExcused;
    service.check(token.id).then(
      (verdict) => {
        this.#counts.checks++;
        if (verdict === 'allowed') this.#counts.allowed++;
        const isStill = isForbidden && (token.isRevoked || token.isDisabled) && !token.isExcused;
        if (verdict === 'allowed' && isStill)
          this.#broken(`${service.name} accepts ${token.name}, whose revocation was answered and in the ledger`);
        if (verdict === 'restored' && this.#isVouched())
          this.#broken(`${service.name} holds ${token.name}, though a whole ledger vouches`);
        then(verdict);
      },
      (error: unknown) => {
        if (!(error instanceof Unavailable)) this.#broken(`a check failed: ${(error as Error).stack}`);
        then('unavailable');
      },
    );
  }

  /** One ledger of all processes, which nobody touched and whose disk has always worked. */
  #isVouched(): boolean {
    return this.#isIntact && this.#disks.length === 1;
  }

  #issue(): void {
    const service = this.#alive();
    if (!service) return;
    const name = `token ${this.#issued++}`;
    const id = this.#random.uuid(this.#db.nowMs);
    const createdMs = this.#schedule.nowMs;
    const state = { isRevoked: false, isDisabled: false, isEnabling: false, isUncertain: false, isExcused: false };
    const everything = this.#everything;
    service.issue(id).then(
      () => this.#tokens.push({ id, name, createdMs, ...state, isUncertain: everything !== this.#everything }),
      (error: unknown) => this.#unlessUnavailable(error),
    );
  }

  #change(action: 'token.revoked' | 'token.disabled' | 'token.enabled'): void {
    const service = this.#alive();
    const token = this.#tokens.length > 0 ? this.#random.pick(this.#tokens) : undefined;
    if (!service || !token) return;
    token.isUncertain = true;
    if (action === 'token.enabled') Object.assign(token, { isDisabled: false, isEnabling: true });
    service.change(token.id, action).then(
      (ledger) => {
        this.#note(`${action} ${token.name} answered by ${service.name}, ledger ${ledger}`);
        // What happens at that very moment finds most.
        this.#strike(0.2);
        if (ledger !== 'written') return;
        this.#counts.revoked++;
        if (action === 'token.revoked') this.#claim(() => Object.assign(token, { isRevoked: true, isExcused: false }));
        else if (action === 'token.disabled')
          this.#claim(() => {
            // Of both, either can have been the last.
            if (!token.isEnabling) token.isDisabled = true;
          });
      },
      (error: unknown) => this.#unlessUnavailable(error),
    );
  }

  /** Of several ledgers, the others have it a second later: until then it depends on the one of the process that answered. */
  #claim(claim: () => void): void {
    const answeredMs = this.#schedule.nowMs;
    if (this.#disks.length === 1) {
      claim();
      return;
    }
    this.#schedule.after(FOLLOWED_MS, () => {
      if (this.#disturbedMs < answeredMs - FOLLOWED_MS && this.#services.every(({ isAlive }) => isAlive)) claim();
    });
  }

  #settle(choice: 'accept' | 'revoke'): void {
    const service = this.#alive();
    if (!service) return;
    // Whether it was done can remain unknown.
    if (choice === 'revoke') this.#everythingRevoked();
    // What the database has forgotten is accepted with it, also when that is never answered.
    const excuse = () => {
      for (const token of this.#tokens)
        if (this.#db.tables.tokens.get(token.id)?.isRevoked === false) token.isExcused = true;
    };
    const isHeld = () => this.#db.tables.restoredBeforeMs !== null;
    if (choice === 'accept' && isHeld()) excuse();
    service.settle(choice).then(
      (isDone) => {
        if (!isDone) return;
        this.#note(`an administrator has decided: ${choice}`);
        if (choice === 'revoke') this.#everythingRevoked();
        else excuse();
      },
      (error: unknown) => this.#unlessUnavailable(error),
    );
  }

  #everythingRevoked(): void {
    this.#everything++;
    for (const token of this.#tokens) token.isUncertain = true;
  }

  #unlessUnavailable(error: unknown): void {
    if (!(error instanceof Unavailable)) this.#broken(`${(error as Error).stack}`);
  }

  #backUp(): void {
    this.#backups.push(this.#db.backUp());
    if (this.#backups.length > BACKUPS_MAX) this.#backups.shift();
    const disk = this.#random.pick(this.#disks);
    if (!this.#faults['older'] || !this.#random.chance(0.3)) return;
    const to = `${disk.dir}-copy-${this.#copies.length}`;
    disk.copy(to);
    this.#copies.push({ disk, to });
  }

  #alive(): TokenService | undefined {
    const alive = this.#services.filter(({ isAlive }) => isAlive);
    return alive.length > 0 ? this.#random.pick(alive) : undefined;
  }

  #strike(probability: number): void {
    if (Object.keys(this.#faults).length === 0 || !this.#random.chance(probability)) return;
    this.#schedule.after(this.#random.spread(0.05, 8), () =>
      this.#fault(this.#random.weighted(this.#faults) as RestoreFault),
    );
  }

  #fault(name: RestoreFault): void {
    this.#counts.faults++;
    const random = this.#random;
    const service = random.pick(this.#services);
    const disk = random.pick(this.#disks);
    const later = (ms: number, what: () => void) => this.#schedule.after(random.spread(10, ms), what);
    const again = () => {
      if (service.isAlive) return;
      this.#note(`${service.name} starts`);
      this.#disturbedMs = this.#schedule.nowMs;
      service.start();
    };
    switch (name) {
      case 'kill':
        if (!service.isAlive) return;
        this.#note(`${service.name} is killed`);
        this.#disturbedMs = this.#schedule.nowMs;
        service.kill();
        later(DOWN_MS, again);
        return;
      case 'stop':
        if (!service.isAlive) return;
        this.#note(`${service.name} stops`);
        this.#disturbedMs = this.#schedule.nowMs;
        service.stop().then(
          () => later(DOWN_MS, again),
          (error: unknown) => this.#broken(`stopping failed: ${(error as Error).stack}`),
        );
        return;
      case 'pause':
        if (!service.isAlive || !service.machine.running) return;
        this.#note(`${service.name} is paused`);
        this.#disturbedMs = this.#schedule.nowMs;
        service.machine.pause();
        later(PAUSE_MS, () => service.machine.resume());
        return;
      case 'together': {
        if (this.#isMoving) return;
        for (const one of this.#services) if (one.isAlive) one.kill();
        this.#move(random.pick(['putBack', 'dump', 'otherServer', 'promote']));
        later(DOWN_MS, () => {
          for (const one of this.#services) if (!one.isAlive) one.start();
        });
        return;
      }
      case 'restart':
      case 'putBack':
      case 'dump':
      case 'otherServer':
      case 'promote':
        this.#move(name);
        return;
      case 'unconfigured':
        this.#unconfigure();
        return;
      case 'full':
        this.#note('a disk is full');
        this.#isIntact = false;
        disk.isFailing = true;
        later(DISK_MS, () => {
          this.#note('a disk works again');
          disk.isFailing = false;
        });
        return;
      case 'slow':
        this.#note('a disk is slow');
        this.#isIntact = false;
        disk.slowestMs = SLOW_MS;
        later(DISK_MS, () => {
          disk.slowestMs = 10;
        });
        return;
      default:
        this.#tamper(name, disk);
    }
  }

  /** The server stops, and starts with something else or the same. */
  #move(name: 'restart' | 'putBack' | 'dump' | 'otherServer' | 'promote'): void {
    const db = this.#db;
    if (this.#isMoving) return;
    this.#isMoving = true;
    this.#disturbedMs = this.#schedule.nowMs;
    db.stop();
    this.#schedule.after(this.#random.spread(10, DOWN_MS), () => {
      const backup = this.#random.pick(this.#backups);
      const age = `from ${(backup.takenMs - EPOCH_MS).toFixed(0)}, ${backup.tables.events.length} events, ${backup.server.system}`;
      if (name === 'putBack') db.putBack(backup);
      else if (name === 'promote') db.promote(backup);
      else if (name !== 'restart') db.restoreDump(backup, name === 'otherServer');
      if (name !== 'restart') this.#counts.restores++;
      this.#note(`the database starts again: ${name}${name === 'restart' ? '' : `, ${age}`}`);
      this.#disturbedMs = this.#schedule.nowMs;
      db.start();
      this.#isMoving = false;
    });
  }

  /** While no process of that ledger runs. */
  #tamper(name: 'lose' | 'older' | 'cut' | 'streamGone', disk: Disk): void {
    const random = this.#random;
    for (const service of this.#services) if (service.disk === disk && service.isAlive) service.kill();
    this.#isIntact = false;
    this.#disturbedMs = this.#schedule.nowMs;
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
    this.#note(`a ledger: ${name}`);
    for (const service of this.#services)
      if (service.disk === disk)
        this.#schedule.after(random.spread(10, DOWN_MS), () => !service.isAlive && service.start());
  }

  /** From now on no ledger is kept. */
  #unconfigure(): void {
    if (this.#services.every(({ hasLedger }) => !hasLedger)) return;
    this.#note('ledgers are removed from the settings');
    this.#isIntact = false;
    this.#disturbedMs = this.#schedule.nowMs;
    // Nothing tells a backup from before the first ledger from one of an installation without any.
    const known = this.#backups.filter(({ tables }) => [...tables.streams.values()].some((row) => row.is_settled));
    this.#backups.splice(0, this.#backups.length, ...known, this.#db.backUp());
    for (const service of this.#services) {
      service.hasLedger = false;
      if (!service.isAlive) continue;
      service.kill();
      service.start();
    }
  }

  #broken(text: string): void {
    if (this.#violation !== undefined) return;
    this.#violation = text;
    this.#note(text);
  }

  #note(text: string): void {
    if (this.#options.history) this.#history.push(`${this.#schedule.nowMs.toFixed(0).padStart(8)} ${text}`);
  }
}
