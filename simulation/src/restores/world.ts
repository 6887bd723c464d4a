import type { ShippedModules } from '../modules.js';
import { Unavailable } from '../network.js';
import { Random } from '../random.js';
import { Schedule } from '../schedule.js';
import { shipped } from '../shipped.js';
import { Copies } from './copies.js';
import { Damage } from './damage.js';
import { Numbers, RestorableDatabase } from './database.js';
import { addStranger, Disk } from './disk.js';
import { FAULTS, type RestoreFault } from './faults.js';
import { DOWN_MS, Moves } from './moves.js';
import { KEY, type Place, TokenService, type Verdict } from './process.js';
import { Scene } from './scene.js';
import { type Token, Tokens } from './tokens.js';

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

class Violation extends Error {}

const STEPS = 120;
const PAUSE_MS = 200_000;
/** Longer than the longest wait for another ledger, twice. */
const SETTLES_MS = 15_000;
/** What was begun before that ends within this. */
const FAULTS_END_MS = 150_000;

/** Runs one world of a database that is put back, and its ledgers. The same options give the same outcome. */
export function simulateRestores(options: RestoreWorldOptions): Promise<RestoreOutcome> {
  return new RestoreWorld(options).run();
}

class RestoreWorld {
  readonly #options: RestoreWorldOptions;
  readonly #scene: Scene;
  readonly #tokens: Tokens;
  readonly #moves: Moves;
  readonly #damage: Damage;
  readonly #copies: Copies;
  #issued = 0;

  constructor(options: RestoreWorldOptions) {
    const { seed, faults, modules = shipped, Service = TokenService } = options;
    this.#options = options;
    const random = new Random(seed);
    const schedule = new Schedule(random);
    const numbers = new Numbers();
    const db = new RestorableDatabase(random, schedule, numbers);
    const drawn: Partial<Record<RestoreFault, number>> = {};
    const names = (faults ?? Object.keys(FAULTS)) as RestoreFault[];
    for (const name of names) if (faults || random.chance(0.6)) drawn[name] = FAULTS[name];
    const retention = drawn.months
      ? { ledgerDays: random.pick([40, 100, 400]), auditMonths: random.pick([0, 1, 2]) }
      : { ledgerDays: 400, auditMonths: 0 };
    const scene = new Scene(random, schedule, numbers, db, modules, retention, drawn, options.history ?? false);
    this.#scene = scene;
    this.#tokens = new Tokens(scene);
    this.#moves = new Moves(scene, this.#tokens);
    this.#damage = new Damage(scene, this.#tokens, this.#moves);
    const place: Place = {
      random,
      schedule,
      db,
      modules,
      retention,
      note: (text) => scene.note(text),
      onEverything: () => this.#tokens.everythingRevoked(),
      onCommit: () => this.#strike(0.1),
      onAccept: (by) => this.#tokens.accepted(by),
    };
    this.#copies = new Copies(scene, this.#tokens, this.#moves, place, Service);
    const services = random.int(1, 2);
    const isShared = options.isShared ?? random.chance(0.5);
    for (let i = 0; i < services; i++) {
      if (i === 0 || !isShared) scene.disks.push(new Disk());
      if (i === 0) addStranger(scene.disks[0]!, modules.ledgerWork, KEY);
      scene.services.push(new Service(`token-service ${i}`, place, scene.disks.at(-1)!));
    }
  }

  async run(): Promise<RestoreOutcome> {
    const scene = this.#scene;
    try {
      await this.#live();
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      scene.violation ??= error.message;
    } finally {
      for (const service of scene.services) scene.kill(service);
      this.#copies.remove();
      for (const disk of scene.disks) disk.remove();
    }
    const { violation, history, counts } = scene;
    counts.holds = scene.services.reduce((sum, { holds }) => sum + holds, 0);
    return { seed: this.#options.seed, violation, history, counts };
  }

  async #live(): Promise<void> {
    const scene = this.#scene;
    const { random, faults } = scene;
    scene.note(
      `LEDGER_RETENTION_DAYS ${scene.retention.ledgerDays}, AUDIT_RETENTION_MONTHS ${scene.retention.auditMonths}`,
    );
    // Of before the first start, as an old version's: no ledger vouches for that.
    if (faults.lose) scene.backUp();
    scene.era++;
    for (const service of scene.services) service.start();
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
    const scene = this.#scene;
    const untilMs = scene.nowMs + ms;
    while (await scene.schedule.step(untilMs)) if (scene.violation !== undefined) throw new Violation(scene.violation);
  }

  #act(): void {
    const { random, services } = this.#scene;
    switch (
      random.weighted({
        check: 12,
        revoke: 6,
        disable: 2,
        issue: 4,
        backUp: 2,
        settle: 1,
        fault: this.#isFaulty ? 4 : 0,
        retire: 1,
      })
    ) {
      case 'check':
        for (const token of this.#tokens.all) this.#check(random.pick(services), token);
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
        this.#fault();
        return;
      case 'retire':
        this.#moves.retire();
        return;
    }
  }

  get #isFaulty(): boolean {
    return Object.keys(this.#scene.faults).length > 0;
  }

  /** All faults end; then everything is answered, at the latest once an administrator has decided. */
  async #recover(): Promise<void> {
    const scene = this.#scene;
    const { services, disks, faults } = scene;
    scene.note('all faults end');
    for (const name of Object.keys(faults) as RestoreFault[]) delete faults[name];
    this.#copies.end('left');
    for (const service of services) service.machine.resume();
    await this.#pass(FAULTS_END_MS);
    for (const disk of disks) disk.repair(scene.nowMs);
    for (const service of services) scene.start(service);
    await this.#pass(SETTLES_MS);
    this.#settle('accept');
    await this.#pass(SETTLES_MS);
    await this.#mustBeAnswered('long after all faults');
    this.#moves.move('restart');
    await this.#pass(DOWN_MS + SETTLES_MS);
    await this.#mustBeAnswered('after a mere restart of the database');
    // What is asked when everything starts again is asked once.
    for (const when of ['first', 'second']) {
      this.#moves.together(() => `restart, with all, ${when}`);
      await this.#pass(2 * DOWN_MS + SETTLES_MS);
      if (when === 'first') this.#settle('accept');
      await this.#pass(SETTLES_MS);
    }
    await this.#mustBeAnswered('after a mere restart of everything');
  }

  async #mustBeAnswered(when: string): Promise<void> {
    const { services, db } = this.#scene;
    for (const service of services)
      for (const token of this.#tokens.all) {
        const row = db.tables.tokens.get(token.id);
        const verdict = await this.#verdictOf(service, token);
        const isGood = row !== undefined && !row.isRevoked && !row.isDisabled;
        if (isGood && verdict !== 'allowed')
          this.#scene.broken(`${service.name} answers ${verdict} for ${token.name}, which is good, ${when}`);
        const isTaken = row?.isRevoked && !token.isUncertain;
        if (isTaken) this.#scene.broken(`${token.name} is revoked, and nobody has revoked it`);
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
    const scene = this.#scene;
    const isForbidden = this.#tokens.isForbidden(token);
    service.check(token.id).then(
      (verdict) => {
        scene.counts.checks++;
        if (verdict === 'allowed') scene.counts.allowed++;
        if (verdict === 'allowed' && isForbidden && this.#tokens.isForbidden(token))
          scene.broken(`${service.name} accepts ${token.name}, whose revocation was answered and in the ledger`);
        if (verdict === 'restored' && scene.isVouched)
          scene.broken(`${service.name} holds ${token.name}, though a whole ledger vouches`);
        then(verdict);
      },
      (error: unknown) => {
        if (!(error instanceof Unavailable)) scene.broken(`a check failed: ${(error as Error).stack}`);
        then('unavailable');
      },
    );
  }

  #issue(): void {
    const { random, db, nowMs: createdMs } = this.#scene;
    const service = this.#scene.alive();
    if (!service) return;
    const name = `token ${this.#issued++}`;
    const id = random.uuid(db.nowMs);
    const { everything } = this.#tokens;
    service.issue(id).then(
      () => this.#tokens.issued(id, name, createdMs, everything !== this.#tokens.everything),
      (error: unknown) => this.#unlessUnavailable(error),
    );
  }

  #change(action: 'token.revoked' | 'token.disabled' | 'token.enabled'): void {
    const { random, counts } = this.#scene;
    const service = this.#scene.alive();
    const token = this.#tokens.all.length > 0 ? random.pick(this.#tokens.all) : undefined;
    if (!service || !token) return;
    const { life } = service;
    token.isUncertain = true;
    if (action === 'token.enabled') Object.assign(token, { isDisabled: false, isEnabling: true });
    service.change(token.id, action).then(
      (ledger) => {
        this.#scene.note(`${action} ${token.name} answered by ${service.name}, ledger ${ledger}`);
        // What happens at that very moment finds most.
        this.#strike(0.2);
        if (ledger === 'failed' && service.disk.isFailing && action === 'token.revoked' && service.life === life)
          this.#tokens.failed(token, service);
        if (ledger !== 'written') return;
        counts.revoked++;
        this.#tokens.written(token, action, service);
      },
      (error: unknown) => this.#unlessUnavailable(error),
    );
  }

  #settle(choice: 'accept' | 'revoke'): void {
    const { db } = this.#scene;
    const service = this.#scene.alive();
    if (!service) return;
    // Whether it was done can remain unknown.
    if (choice === 'revoke') this.#tokens.everythingRevoked();
    // What the database has forgotten is accepted with it, also when that is never answered.
    if (choice === 'accept' && db.tables.restoredBeforeMs !== null) this.#tokens.excuse(db);
    service.settle(choice).then(
      (isDone) => {
        if (!isDone) return;
        this.#scene.note(`an administrator has decided: ${choice}`);
        if (choice === 'revoke') this.#tokens.everythingRevoked();
        else this.#tokens.excuse(db);
      },
      (error: unknown) => this.#unlessUnavailable(error),
    );
  }

  #unlessUnavailable(error: unknown): void {
    if (!(error instanceof Unavailable)) this.#scene.broken(`${(error as Error).stack}`);
  }

  #backUp(): void {
    const { faults, random } = this.#scene;
    this.#scene.backUp();
    if (faults.older && random.chance(0.3)) this.#damage.copyLedgers();
  }

  #strike(probability: number): void {
    const { random, schedule } = this.#scene;
    if (!this.#isFaulty || !random.chance(probability)) return;
    schedule.after(random.spread(0.05, 8), () => this.#isFaulty && this.#fault());
  }

  #fault(): void {
    const scene = this.#scene;
    const { random } = scene;
    const name = random.weighted(scene.faults as Record<RestoreFault, number>);
    const service = random.pick(scene.services);
    const disk = random.pick(scene.disks);
    scene.counts.faults++;
    switch (name) {
      case 'kill':
      case 'stop':
      case 'pause':
        this.#disturb(name, service);
        return;
      case 'together':
        this.#moves.together();
        return;
      case 'restart':
      case 'putBack':
      case 'dump':
      case 'otherServer':
      case 'promote':
        this.#moves.move(name);
        return;
      case 'moved':
      case 'copied':
        this.#copies.begin(name === 'copied');
        return;
      case 'months':
        this.#moves.months();
        return;
      case 'full':
      case 'slow':
      case 'exchange':
        this.#damage[name](disk);
        return;
      case 'fullAtEnd':
        this.#damage.fullAtEnd(disk, () => this.#change('token.revoked'));
        return;
      case 'unreadable':
        this.#damage.obstruct(disk);
        return;
      case 'unconfigured':
        this.#damage.unconfigure();
        return;
      default:
        this.#damage.tamper(name, disk);
    }
  }

  #disturb(name: 'kill' | 'stop' | 'pause', service: TokenService): void {
    const scene = this.#scene;
    if (!service.isAlive || (name === 'pause' && !service.machine.running)) return;
    scene.note(`${service.name}: ${name}`);
    scene.disturb();
    const again = () => scene.later(DOWN_MS, () => scene.start(service));
    if (name === 'kill') {
      service.kill();
      again();
    } else if (name === 'stop')
      service.stop().then(again, (error: unknown) => scene.broken(`stopping failed: ${(error as Error).stack}`));
    else {
      service.machine.pause();
      scene.later(PAUSE_MS, () => service.machine.resume());
    }
  }
}
