import type { Effect } from '@latchkey/contracts';
import type { Requirement } from '@latchkey/verifier';
import { Attacker } from './attacker.js';
import { drawWeights, fault, type Targets } from './faults.js';
import { Gateway } from './gateway.js';
import { Invariants, SLACK_MS } from './invariants.js';
import { SLOWEST } from './machine.js';
import { type Change, Model, type Token } from './model.js';
import { Redis, Unavailable } from './network.js';
import type { ChangeState, Check, Outcome, WorldOptions } from './outcome.js';
import { Published } from './published.js';
import { Random } from './random.js';
import { type Environment, LEASE_MS_MAX, LEASE_MS_MIN, Replica } from './replica.js';
import { Schedule } from './schedule.js';
import { shipped } from './shipped.js';

export const STEPS = 200;
/** Share of a lease that a token-service waits longer than the lease (docs: revocation). */
const DRIFT = 0.2;
/** Longest until a wait scans again, and finds that the server has been started: its unowned lease runs from there. */
const SCAN_MS = 2_000;
const CLIENT_PATIENCE_MS = 2_000;
const CLIENT_RETRY_MS = 50;
/** After this, nothing is under way any more that was lost while a fault lasted. */
const QUIET_MS = 600;

class Violation extends Error {}

/** PostgreSQL could not be reached, or could not show that it is the primary: the caller gets a 503. */
const isUnavailable = (error: unknown): error is Error =>
  error instanceof Unavailable || (error instanceof Error && ['AuthorityLost', 'ChangeForgotten'].includes(error.name));

/** Runs one world; the same options give the same outcome. */
export function simulate(options: WorldOptions): Promise<Outcome> {
  return new World(options).run();
}

class World {
  readonly #random: Random;
  readonly #schedule: Schedule;
  readonly #steps: number;
  readonly #targets: Targets & { leaseMs: number; longestLeaseMs: number };
  readonly #model: Model;
  readonly #gateways: Gateway[] = [];
  readonly #replicas: Replica[] = [];
  readonly #invariants: Invariants;
  readonly #endings = new Set<() => void>();
  readonly #history: string[] = [];
  readonly #keepHistory: boolean;
  readonly #counts = { checks: 0, allowed: 0, effective: 0, faults: 0, events: 0 };
  readonly #by: Record<string, number> = {};
  readonly #seed: number;
  readonly #faultsGiven: boolean;
  #troubleUntilMs = 0;

  constructor({ seed, steps = STEPS, modules = shipped, faults, retentionMs, history = false }: WorldOptions) {
    this.#seed = seed;
    this.#steps = steps;
    this.#keepHistory = history;
    this.#faultsGiven = faults !== undefined;
    const random = new Random(seed);
    const schedule = new Schedule(random);
    const db = new modules.Database(random, schedule);
    const redis = new Redis(random, schedule);
    const model = new Model(random);
    this.#random = random;
    this.#schedule = schedule;
    this.#model = model;
    const env: Environment = {
      random,
      schedule,
      db,
      redis,
      model,
      modules,
      retentionMs: retentionMs ?? random.pick([900, 20_000]),
      published: new Published(),
    };
    const replicas = random.int(1, 2);
    for (let i = 0; i < replicas; i++) this.#replicas.push(new Replica(`token-service ${i}`, env));
    const gateways = random.int(1, 3);
    for (let i = 0; i < gateways; i++) this.#gateways.push(new Gateway(`gateway ${i}`, env, this.#replicas));
    const leaseMs = Math.round(random.spread(LEASE_MS_MIN, LEASE_MS_MAX));
    const weights = drawWeights(random, faults);
    env.published.keyLeaked = weights.signer > 0;
    const note = (text: string) => this.#note(text);
    const invariants = new Invariants(env, {
      lapsedMs: () => this.#lapsedMs(),
      isAttacked: weights.attacker + weights.signer > 0,
      note,
    });
    this.#invariants = invariants;
    for (const gateway of this.#gateways)
      gateway.onForgedAcknowledgement = () =>
        invariants.broken(`${gateway.name} acknowledged what no token-service has published`);
    this.#targets = {
      ...env,
      attacker: new Attacker(env, this.#gateways, this.#replicas),
      gateways: this.#gateways,
      replicas: this.#replicas,
      leaseMs,
      longestLeaseMs: leaseMs,
      weights,
      note,
      change: () => this.#change(this.#model.change()),
      rush: (gateway) => this.#rush(gateway),
      restored: () => {
        for (const state of invariants.restored()) this.#attempt(state);
      },
      promoted: () => invariants.promoted(),
    };
    for (const token of model.tokens) {
      db.tables.rights.tokens.set(token.hash, token);
      invariants.present.add(token);
    }
  }

  async run(): Promise<Outcome> {
    try {
      await this.#live();
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
    }
    return {
      seed: this.#seed,
      violation: this.#invariants.violation,
      history: this.#history,
      ...this.#counts,
      resets: this.#gateways.reduce((sum, gateway) => sum + gateway.resets(), 0),
      gateways: this.#gateways.length,
      by: this.#by,
      simulatedMs: Math.round(this.#schedule.nowMs),
    };
  }

  async #live(): Promise<void> {
    const random = this.#random;
    this.#targets.db.backUp();
    for (const replica of this.#replicas) replica.start(this.#targets.leaseMs);
    for (const gateway of this.#gateways) gateway.start();
    await this.#pass(random.spread(1, 200));
    const rough = random.chance(0.9) || this.#faultsGiven;
    // Some worlds are slower: then whole leases pass between what happens.
    const pace = random.pick([1, 1, 3, 6]);
    for (let step = 0; step < this.#steps; step++) {
      this.#act(rough);
      await this.#pass(random.spread(0.2, 60) * pace);
    }
    await this.#endFaults();
  }

  /** Lets time pass. Throws when an invariant broke meanwhile. */
  async #pass(ms: number): Promise<void> {
    const untilMs = this.#schedule.nowMs + ms;
    while (await this.#schedule.step(untilMs)) {
      this.#counts.events++;
      this.#throwIfBroken();
    }
    this.#invariants.timePassed();
    this.#throwIfBroken();
  }

  #throwIfBroken(): void {
    const { violation } = this.#invariants;
    if (violation !== undefined) throw new Violation(violation);
  }

  /** All faults end, and then everything has to recover. */
  async #endFaults(): Promise<void> {
    const invariants = this.#invariants;
    for (const end of [...this.#endings]) end();
    this.#note('all faults have ended');
    const boundMs = this.#lapsedMs() + SCAN_MS + SLACK_MS;
    this.#troubleUntilMs = this.#schedule.nowMs + QUIET_MS;
    const untilMs = this.#schedule.nowMs + boundMs;
    while (this.#schedule.nowMs < untilMs && invariants.pending().length > 0) await this.#pass(20);
    const [late] = invariants.pending();
    if (late) invariants.broken(`${late.change.name} is not confirmed ${boundMs.toFixed(0)} ms after the faults ended`);
    // Now every gateway answers from memory, and every check must get the right verdict.
    await this.#pass(this.#lapsedMs());
    const without = () => this.#gateways.find(({ verifier }) => !verifier?.state().leaseHeld);
    const leasesByMs = this.#schedule.nowMs + SLACK_MS;
    while (this.#schedule.nowMs < leasesByMs && without()) await this.#pass(20);
    if (without()) invariants.broken(`${without()!.name} has no lease although the faults ended long ago`);
    for (const gateway of this.#gateways)
      for (const token of this.#model.tokens) this.#check(gateway, token, this.#model.requirement());
    await this.#pass(1_000);
  }

  /** The longest that a lease can last in true time, its drift allowance included. */
  #lapsedMs(): number {
    return (this.#targets.longestLeaseMs * (1 + DRIFT)) / SLOWEST;
  }

  #act(rough: boolean): void {
    const random = this.#random;
    const gateway = random.pick(this.#gateways);
    switch (random.weighted({ check: 16, burst: 4, change: 2, issue: 1, stream: 2, fault: rough ? 3 : 0, heal: 2 })) {
      case 'check':
        this.#check(gateway, random.pick(this.#model.tokens), this.#model.requirement());
        return;
      case 'burst': {
        // The same token at once, so that checks share a fill.
        const token = random.pick(this.#model.tokens);
        const checks = random.int(2, 5);
        const requirement = this.#model.requirement();
        for (let i = 0; i < checks; i++)
          this.#schedule.after(random.float() * 30, () => this.#check(gateway, token, requirement));
        return;
      }
      case 'change':
        this.#change(this.#model.change());
        return;
      case 'issue':
        this.#issue(this.#model.make());
        return;
      case 'stream':
        this.#check(gateway, random.pick(this.#model.tokens), this.#model.requirement(), true);
        return;
      case 'fault': {
        const begun = fault(this.#targets);
        this.#counts.faults++;
        this.#troubleUntilMs = Math.max(this.#troubleUntilMs, this.#schedule.nowMs + this.#lapsedMs() + SLACK_MS);
        if (!begun) return;
        const end = () => {
          if (!this.#endings.delete(end)) return;
          this.#note(`… ${begun.name}: over`);
          begun.end();
          this.#troubleUntilMs = this.#schedule.nowMs + this.#lapsedMs() + SLACK_MS;
        };
        this.#endings.add(end);
        this.#schedule.after(begun.lastsMs, end);
        return;
      }
      case 'heal':
        for (const end of [...this.#endings]) if (random.chance(0.5)) end();
        return;
    }
  }

  #rush(gateway: Gateway): void {
    const random = this.#random;
    const requirement = { scopes: ['demo:read'] };
    for (let i = 0; i < 3; i++) {
      const token = random.pick(this.#model.tokens);
      for (let check = 0; check < 4; check++)
        this.#schedule.after(random.float() * 150, () => this.#check(gateway, token, requirement));
    }
  }

  #check(gateway: Gateway, token: Token, requirement: Requirement, thenStream = false): void {
    let check: Check | undefined;
    gateway.check(
      token,
      requirement,
      () => {
        check = {
          ...this.#invariants.beginCheck(gateway, token, requirement),
          calm: this.#endings.size === 0 && this.#schedule.nowMs > this.#troubleUntilMs,
          faults: this.#counts.faults,
        };
      },
      (verdict) => {
        this.#counts.checks++;
        if (verdict.allowed) this.#counts.allowed++;
        const { calm, faults } = check!;
        this.#invariants.checkVerdict(check!, verdict, calm && faults === this.#counts.faults);
        if (thenStream && verdict.allowed) {
          const stream = gateway.watch(token, requirement, (reason) =>
            this.#note(`${gateway.name}: stream of ${token.name} cut, ${reason}`),
          );
          this.#note(`${gateway.name}: stream of ${token.name} opened`);
          if (stream) this.#invariants.streams.push(stream);
        }
      },
    );
  }

  /** A client makes a change and repeats its request until it is effective. */
  #change(change: Change): void {
    const random = this.#random;
    const state: ChangeState = {
      change,
      id: random.uuid(this.#schedule.nowMs),
      begunMs: this.#schedule.nowMs,
      effectiveMs: undefined,
      restoredMs: Number.NEGATIVE_INFINITY,
      undone: false,
      era: 0,
      by: new Map(),
    };
    this.#invariants.changes.push(state);
    this.#model.tokens.push(...change.brings);
    if (change.brings.length > 0) {
      // Clients have been trying these already.
      for (const token of change.brings)
        for (const gateway of this.#gateways)
          if (random.chance(0.7)) this.#check(gateway, token, { scopes: ['demo:read'] });
      this.#schedule.after(random.spread(1, 300), () => this.#attempt(state));
    } else this.#attempt(state);
    this.#note(`${change.name} …`);
  }

  #attempt(state: ChangeState): void {
    if (state.undone || state.effectiveMs !== undefined) return;
    const invariants = this.#invariants;
    const random = this.#random;
    const schedule = this.#schedule;
    let isOver = false;
    const retry = (why: string) => {
      if (isOver) return;
      over();
      this.#note(`… ${state.change.name}: ${why}; retrying`);
      schedule.after(random.spread(1, CLIENT_RETRY_MS), () => this.#attempt(state));
    };
    let over = () => {
      isOver = true;
    };
    const alive = this.#replicas.filter((replica) => replica.alive);
    if (alive.length === 0) {
      retry('no token-service is running');
      return;
    }
    const replica = random.pick(alive);
    const stopWaiting = schedule.after(CLIENT_PATIENCE_MS + this.#lapsedMs(), () => retry('timeout'));
    const connected = replica.machine.onDeath(() => schedule.after(1, () => retry('connection lost')));
    over = () => {
      isOver = true;
      stopWaiting();
      connected();
    };
    const { era } = state;
    const waitMs = random.chance(0.1) ? random.int(0, 200) : undefined;
    replica.machine.deliverAfter(random.float(), () => {
      replica.change(state.change, state.id, waitMs).then(
        (effect) => {
          // A response to a request from before a folder was swapped back counts only when it says "effective".
          if (era !== state.era && !(effect.effective && invariants.isNoticed(state))) return;
          if (effect.effective && !state.undone) {
            over();
            this.#effective(state, effect, replica);
          } else if (effect.effective) invariants.checkForgotten(state, effect, replica);
          else retry(`pending at ${effect.pending.length}`);
        },
        (error: unknown) => {
          if (error instanceof Error && error.name === 'ChangeForgotten') invariants.checkKnown(state);
          if (isUnavailable(error)) retry(error.message);
          else invariants.broken(`${state.change.name} failed: ${error instanceof Error ? error.stack : error}`);
        },
      );
    });
  }

  #effective(state: ChangeState, { receipt }: Effect, replica: Replica): void {
    if (state.effectiveMs !== undefined) return;
    const { change } = state;
    state.effectiveMs = this.#schedule.nowMs;
    this.#counts.effective++;
    for (const { id, by } of receipt?.verifiers ?? []) {
      state.by.set(id, by);
      this.#by[by] = (this.#by[by] ?? 0) + 1;
    }
    const how = receipt?.verifiers.map(({ name, by }) => `${name} by ${by}`).join(', ') || 'no verifier';
    this.#note(`… ${change.name}: effective according to ${replica.name} (${how})`);
    this.#invariants.checkStreams(state);
    for (const token of change.brings) this.#invariants.present.add(token);
    // Clients check everywhere: at once, or a moment later, because a check without a lease fills memory anew.
    const laterMs = this.#random.chance(0.6) ? 0 : this.#random.float() * 150;
    for (const gateway of this.#gateways) {
      for (const token of this.#model.tokens) {
        for (const scope of ['demo:read', 'demo:write', 'demo:admin']) {
          const requirement = { scopes: [scope], ...(change.kind === 'project' && { project: change.subject }) };
          if (change.hits(token, requirement) || change.brings.includes(token)) {
            this.#schedule.after(laterMs, () => this.#check(gateway, token, requirement));
            break;
          }
        }
      }
    }
  }

  #issue(token: Token): void {
    const alive = this.#replicas.filter((replica) => replica.alive);
    if (alive.length === 0) return;
    const replica = this.#random.pick(alive);
    replica.machine.deliverAfter(1, () => {
      replica.issue(token).then(
        () => {
          this.#note(`${token.name} issued`);
          this.#model.tokens.push(token);
          this.#invariants.issued(token);
          this.#check(this.#random.pick(this.#gateways), token, { scopes: ['demo:read'] });
        },
        () => this.#note(`${token.name} could not be issued`),
      );
    });
  }

  #note(text: string): void {
    if (this.#keepHistory) this.#history.push(`${this.#schedule.nowMs.toFixed(1).padStart(9)} ${text}`);
  }
}
