import type { Effect } from '@latchkey/contracts';
import type { Requirement, Verdict } from '@latchkey/verifier';
import { drawWeights, fault, type Victims } from './faults.js';
import { Gateway, type OpenStream } from './gateway.js';
import { Holder } from './holder.js';
import { SLOWEST } from './machine.js';
import { Away, Redis } from './network.js';
import type { Check, Made, Outcome, WorldOptions } from './outcome.js';
import { Random } from './random.js';
import { LEASE_MS_MAX, LEASE_MS_MIN, NOTICED_WITHIN_MS, Replica, type Surroundings } from './replica.js';
import { Said } from './said.js';
import { Schedule } from './schedule.js';
import { shipped } from './shipped.js';
import { type Change, type Token, Town } from './town.js';

export const STEPS = 200;
/** Share of a lease that whoever judges it waits longer (docs: revocation). */
const DRIFT = 0.2;
/** What confirming may take besides leases: timers, statements, a client that asks again. */
const SLACK_MS = 1_500;
/** Longest until a wait looks again, and finds that the server has been started: its lease in nobody's hands runs from there. */
const LOOK_MS = 2_000;
const CLIENT_PATIENCE_MS = 2_000;
const CLIENT_RETRY_MS = 50;
const STREAM_RECHECK_MS = 250;
/** Coarser than the uptime is counted, and timers. */
const CLOCKS_STEP_MS = 20;
/** After this, nothing is under way any more that was lost while a fault lasted. */
const SETTLED_MS = 600;

class Violation extends Error {}

/** PostgreSQL could not be reached, or could not show that it is the primary: whoever asked gets a 503. */
const isAway = (error: unknown): error is Error =>
  error instanceof Away || (error instanceof Error && ['AuthorityLost', 'ChangeForgotten'].includes(error.name));

/** Runs one world; the same options give the same outcome. */
export function simulate(options: WorldOptions): Promise<Outcome> {
  return new World(options).run();
}

class World {
  readonly #random: Random;
  readonly #schedule: Schedule;
  readonly #steps: number;
  readonly #around: Surroundings;
  readonly #victims: Victims & { leaseMs: number; longestLeaseMs: number };
  readonly #town: Town;
  readonly #gateways: Gateway[] = [];
  readonly #replicas: Replica[] = [];
  readonly #made: Made[] = [];
  /** Tokens whose issue or import is known to have been committed. */
  readonly #present = new Set<Token>();
  readonly #streams: OpenStream[] = [];
  readonly #endings = new Set<() => void>();
  readonly #history: string[] = [];
  readonly #keepHistory: boolean;
  readonly #counts = { checks: 0, allowed: 0, effective: 0, faults: 0, events: 0 };
  readonly #by: Record<string, number> = {};
  readonly #seed: number;
  readonly #faultsGiven: boolean;
  #violation: string | undefined;
  #mayForget = false;
  #mayUndo = false;
  /** A token issued on the new side may be unknown to whoever still may answer for the old one. */
  readonly #knownFromMs = new Map<Token, number>();
  #promotedMs = Number.NEGATIVE_INFINITY;
  #log: string;
  readonly #logs = new Set<string>();
  /** The start of the server under which the last one was begun. */
  #logBegunIn = 0;
  #troubleUntilMs = 0;

  constructor({ seed, steps = STEPS, rooms = shipped, faults, keepMs, history = false }: WorldOptions) {
    this.#seed = seed;
    this.#steps = steps;
    this.#keepHistory = history;
    this.#faultsGiven = faults !== undefined;
    const random = new Random(seed);
    const schedule = new Schedule(random);
    const db = new rooms.Database(random, schedule);
    const redis = new Redis(random, schedule);
    const town = new Town(random);
    this.#random = random;
    this.#schedule = schedule;
    this.#town = town;
    const around: Surroundings = {
      random,
      schedule,
      db,
      redis,
      town,
      rooms,
      keepMs: keepMs ?? random.pick([900, 20_000]),
      said: new Said(),
    };
    this.#around = around;
    this.#log = db.tables.log;
    this.#logs.add(this.#log);
    const replicas = random.int(1, 2);
    for (let i = 0; i < replicas; i++) this.#replicas.push(new Replica(`token-service ${i}`, around));
    const gateways = random.int(1, 3);
    for (let i = 0; i < gateways; i++) this.#gateways.push(new Gateway(`gateway ${i}`, around, this.#replicas));
    for (const gateway of this.#gateways)
      gateway.onMadeUp = () => this.#break(`${gateway.name} acknowledged what no token-service has said`);
    const leaseMs = Math.round(random.spread(LEASE_MS_MIN, LEASE_MS_MAX));
    const weights = drawWeights(random, faults);
    around.said.keyLeaked = weights.signer > 0;
    this.#victims = {
      ...around,
      holder: new Holder(around, this.#gateways, this.#replicas),
      gateways: this.#gateways,
      replicas: this.#replicas,
      leaseMs,
      longestLeaseMs: leaseMs,
      weights,
      note: (text) => this.#note(text),
      change: () => this.#change(this.#town.change()),
      rush: (gateway) => this.#rush(gateway),
      restored: () => this.#restored(),
      promoted: () => {
        this.#mayForget = true;
        this.#promotedMs = this.#schedule.nowMs;
      },
    };
    for (const token of town.tokens) {
      db.tables.facts.tokens.set(token.hash, token);
      this.#present.add(token);
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
      violation: this.#violation,
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
    this.#around.db.backUp();
    for (const replica of this.#replicas) replica.start(this.#victims.leaseMs);
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

  /** Lets time pass. Whatever broke an invariant meanwhile is thrown here. */
  async #pass(ms: number): Promise<void> {
    const untilMs = this.#schedule.nowMs + ms;
    while (await this.#schedule.step(untilMs)) {
      this.#counts.events++;
      if (this.#violation !== undefined) throw new Violation(this.#violation);
    }
    this.#watchStreams();
    this.#watchLog();
    if (this.#violation !== undefined) throw new Violation(this.#violation);
  }

  /** All faults end, and then everything has to come right. */
  async #endFaults(): Promise<void> {
    for (const end of [...this.#endings]) end();
    this.#note('all faults have ended');
    const boundMs = this.#lapsedMs() + LOOK_MS + SLACK_MS;
    this.#troubleUntilMs = this.#schedule.nowMs + SETTLED_MS;
    const untilMs = this.#schedule.nowMs + boundMs;
    while (this.#schedule.nowMs < untilMs && this.#pending().length > 0) await this.#pass(20);
    const [late] = this.#pending();
    if (late) this.#break(`${late.change.name} is not confirmed ${boundMs.toFixed(0)} ms after the faults ended`);
    // Now that all is well, every gateway answers from memory, and every check is answered, and rightly.
    await this.#pass(this.#lapsedMs());
    const without = () => this.#gateways.find(({ verifier }) => !verifier?.state().leaseHeld);
    const leasesByMs = this.#schedule.nowMs + SLACK_MS;
    while (this.#schedule.nowMs < leasesByMs && without()) await this.#pass(20);
    if (without()) this.#break(`${without()!.name} has no lease although the faults ended long ago`);
    for (const gateway of this.#gateways)
      for (const token of this.#town.tokens) this.#check(gateway, token, this.#town.requirement());
    await this.#pass(1_000);
  }

  #pending(): Made[] {
    return this.#made.filter(({ effectiveMs, undone }) => effectiveMs === undefined && !undone);
  }

  /** The longest that a lease can last in true time, its drift allowance included. */
  #lapsedMs(): number {
    return (this.#victims.longestLeaseMs * (1 + DRIFT)) / SLOWEST;
  }

  #act(rough: boolean): void {
    const random = this.#random;
    const gateway = random.pick(this.#gateways);
    switch (random.weighted({ check: 16, burst: 4, change: 2, issue: 1, stream: 2, fault: rough ? 3 : 0, heal: 2 })) {
      case 'check':
        this.#check(gateway, random.pick(this.#town.tokens), this.#town.requirement());
        return;
      case 'burst': {
        // The same token at once, so that checks share a fill.
        const token = random.pick(this.#town.tokens);
        const checks = random.int(2, 5);
        const requirement = this.#town.requirement();
        for (let i = 0; i < checks; i++)
          this.#schedule.after(random.float() * 30, () => this.#check(gateway, token, requirement));
        return;
      }
      case 'change':
        this.#change(this.#town.change());
        return;
      case 'issue':
        this.#issue(this.#town.make());
        return;
      case 'stream':
        this.#check(gateway, random.pick(this.#town.tokens), this.#town.requirement(), true);
        return;
      case 'fault': {
        const begun = fault(this.#victims);
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
      const token = random.pick(this.#town.tokens);
      for (let check = 0; check < 4; check++)
        this.#schedule.after(random.float() * 150, () => this.#check(gateway, token, requirement));
    }
  }

  #check(gateway: Gateway, token: Token, requirement: Requirement, thenStream = false): void {
    const before: { check?: Check } = {};
    gateway.check(
      token,
      requirement,
      () => {
        const check: Check = {
          gateway,
          token,
          requirement,
          begunMs: this.#schedule.nowMs,
          forbidden: this.#made.find(
            ({ change, effectiveMs, undone }) =>
              effectiveMs !== undefined && !undone && change.hits(token, requirement),
          ),
          entitled: this.#isEntitled(token, requirement),
          calm: this.#endings.size === 0 && this.#schedule.nowMs > this.#troubleUntilMs,
          faults: this.#counts.faults,
        };
        before.check = check;
      },
      (verdict) => {
        this.#judge(before.check!, verdict);
        if (thenStream && verdict.allowed) {
          const stream = gateway.watch(token, requirement, (reason) =>
            this.#note(`${gateway.name}: stream of ${token.name} cut, ${reason}`),
          );
          this.#note(`${gateway.name}: stream of ${token.name} opened`);
          if (stream) this.#streams.push(stream);
        }
      },
    );
  }

  /** Whether the token is there, and no change has so much as begun that takes this away. */
  #isEntitled(token: Token, requirement: Requirement): boolean {
    if ((this.#knownFromMs.get(token) ?? 0) > this.#schedule.nowMs) return false;
    if (!this.#present.has(token) || this.#made.some(({ change }) => change.hits(token, requirement))) return false;
    const { project } = requirement;
    return project === undefined || token.kind === 'pat' || token.project === project;
  }

  #judge(check: Check, verdict: Verdict): void {
    const { gateway, token, requirement, begunMs, forbidden, entitled, calm, faults } = check;
    this.#counts.checks++;
    if (verdict.allowed) this.#counts.allowed++;
    const asked = `${gateway.name}: ${token.name} for ${requirement.scopes.join()}${requirement.project ? ` in project ${this.#town.projects.indexOf(requirement.project)}` : ''}`;
    const answer = verdict.allowed ? 'allowed' : verdict.reason;
    this.#note(`${asked}, asked at ${begunMs.toFixed(1)}: ${answer}`);
    if (verdict.allowed) {
      // Undone meanwhile, and perhaps put back since.
      if (!forbidden || forbidden.undone || !((forbidden.effectiveMs ?? Number.POSITIVE_INFINITY) <= begunMs)) return;
      if (begunMs <= gateway.machine.hiddenUntilMs) return;
      const at = forbidden.effectiveMs!.toFixed(1);
      this.#break(
        `${asked} was allowed in a check begun at ${begunMs.toFixed(1)}, although "${forbidden.change.name}" had been effective since ${at}`,
      );
      return;
    }
    if (!entitled) return;
    const transient = verdict.reason === 'unavailable' || verdict.reason === 'rate_limited';
    // A change that took the token's right away meanwhile may have overtaken each of the check's questions.
    if (this.#isEntitled(token, requirement) && (!transient || (calm && faults === this.#counts.faults)))
      this.#break(
        `${asked} was refused as ${verdict.reason} in a check begun at ${begunMs.toFixed(1)}, although nothing forbids it`,
      );
  }

  /** Somebody makes a change and asks again until it is effective. */
  #change(change: Change): void {
    const random = this.#random;
    const made: Made = {
      change,
      id: random.uuid(this.#schedule.nowMs),
      begunMs: this.#schedule.nowMs,
      effectiveMs: undefined,
      movedMs: Number.NEGATIVE_INFINITY,
      undone: false,
      era: 0,
      by: new Map(),
    };
    this.#made.push(made);
    this.#town.tokens.push(...change.brings);
    if (change.brings.length > 0) {
      // Somebody has been trying these already.
      for (const token of change.brings)
        for (const gateway of this.#gateways)
          if (random.chance(0.7)) this.#check(gateway, token, { scopes: ['demo:read'] });
      this.#schedule.after(random.spread(1, 300), () => this.#attempt(made));
    } else this.#attempt(made);
    this.#note(`${change.name} …`);
  }

  #attempt(made: Made): void {
    if (made.undone || made.effectiveMs !== undefined) return;
    const { random, schedule } = this.#around;
    let answered = false;
    const again = (why: string) => {
      if (answered) return;
      over();
      this.#note(`… ${made.change.name}: ${why}; asked again`);
      schedule.after(random.spread(1, CLIENT_RETRY_MS), () => this.#attempt(made));
    };
    let over = () => {
      answered = true;
    };
    const alive = this.#replicas.filter((replica) => replica.alive);
    if (alive.length === 0) {
      again('no token-service there');
      return;
    }
    const replica = random.pick(alive);
    const stopWaiting = schedule.after(CLIENT_PATIENCE_MS + this.#lapsedMs(), () => again('no answer'));
    const connected = replica.machine.onDeath(() => schedule.after(1, () => again('connection lost')));
    over = () => {
      answered = true;
      stopWaiting();
      connected();
    };
    const { era } = made;
    const waitMs = random.chance(0.1) ? random.int(0, 200) : undefined;
    replica.machine.deliverAfter(random.float(), () => {
      replica.change(made.change, made.id, waitMs).then(
        (effect) => {
          // Of what was asked before a folder was swapped back, only that it is effective is an answer about now.
          if (era !== made.era && !(effect.effective && this.#isNoticed(made))) return;
          if (effect.effective && !made.undone) {
            over();
            this.#effective(made, effect, replica);
          } else if (effect.effective) this.#judgeForgotten(made, effect, replica);
          else again(`pending at ${effect.pending.length}`);
        },
        (error: unknown) => {
          const isKnown = this.#around.db.tables.invalidations.some(({ id }) => id === made.id);
          if (error instanceof Error && error.name === 'ChangeForgotten' && isKnown && !this.#mayUndo)
            this.#break(`${made.change.name} was said to be forgotten, although it is known`);
          if (isAway(error)) again(error.message);
          else this.#break(`${made.change.name} failed: ${error instanceof Error ? error.stack : error}`);
        },
      );
    });
  }

  #effective(made: Made, { receipt }: Effect, replica: Replica): void {
    if (made.effectiveMs !== undefined) return;
    const { change } = made;
    made.effectiveMs = this.#schedule.nowMs;
    this.#counts.effective++;
    for (const { id, by } of receipt?.verifiers ?? []) {
      made.by.set(id, by);
      this.#by[by] = (this.#by[by] ?? 0) + 1;
    }
    const how = receipt?.verifiers.map(({ name, by }) => `${name} by ${by}`).join(', ') || 'no verifier';
    this.#note(`… ${change.name}: effective, says ${replica.name} (${how})`);
    for (const stream of this.#streams) this.#judgeStream(stream, made);
    for (const token of change.brings) this.#present.add(token);
    // Everybody tries: at once, or a moment later, because a check without a lease leaves a fresh answer behind.
    const laterMs = this.#random.chance(0.6) ? 0 : this.#random.float() * 150;
    for (const gateway of this.#gateways) {
      for (const token of this.#town.tokens) {
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
          this.#knownFromMs.set(token, this.#promotedMs + this.#lapsedMs());
          this.#town.tokens.push(token);
          if (this.#around.db.tables.facts.tokens.has(token.hash)) this.#present.add(token);
          this.#check(this.#random.pick(this.#gateways), token, { scopes: ['demo:read'] });
        },
        () => this.#note(`${token.name} could not be issued`),
      );
    });
  }

  /** A backup was restored: what was committed after it has never been. */
  #restored(): void {
    this.#mayForget = true;
    this.#mayUndo = true;
    const { changes, facts } = this.#around.db.tables;
    for (const made of this.#made) {
      made.movedMs = this.#schedule.nowMs;
      if (!changes.has(made.id)) made.undone = true;
      else if (made.undone) {
        // Put back as well; whoever asks whether it is effective is told anew.
        made.undone = false;
        made.effectiveMs = undefined;
        made.by.clear();
        made.era++;
        this.#attempt(made);
      }
    }
    for (const token of [...this.#present]) if (!facts.tokens.has(token.hash)) this.#present.delete(token);
  }

  /** Whether whoever answers about a change must know by now what became of it. */
  #isNoticed({ movedMs }: Made): boolean {
    return this.#schedule.nowMs - movedMs > NOTICED_WITHIN_MS / SLOWEST + CLOCKS_STEP_MS;
  }

  /** A database that has forgotten a change shows nothing about it; what was read before that shows it for a moment. */
  #judgeForgotten(made: Made, { receipt }: Effect, replica: Replica): void {
    const { change, id } = made;
    if (this.#around.db.tables.changes.has(id)) return; // it came late, and was made in this history
    if (replica.readFrom?.changes.has(id) !== false && !this.#isNoticed(made)) return;
    const how = receipt?.verifiers.map(({ by }) => by).join(', ');
    this.#break(`"${change.name}" is effective (${how}), says ${replica.name}, although it has been forgotten`);
  }

  /** Whatever else happens, nobody's memory is emptied by a new log while history has not been forgotten. */
  #watchLog(): void {
    const { log, begunIn } = this.#around.db.tables;
    if (log === this.#log) return;
    this.#note('a new log is begun');
    if (!this.#mayForget) this.#break('a new log was begun although history has forgotten nothing');
    this.#log = log;
    if (this.#logs.has(log)) return; // put back with its folder
    this.#logs.add(log);
    if (this.#logBegunIn === begunIn) this.#break('a second log was begun under one start of the server');
    this.#logBegunIn = begunIn;
  }

  /** A stream that has been confirmed by its verifier's own word has been cut, or checked again in time. */
  #judgeStream(stream: OpenStream, made: Made): void {
    if (stream.cut || !made.change.cut || !made.change.hits(stream.token, stream.requirement)) return;
    const by = [...stream.verifierIds].map((id) => made.by.get(id)).find((how) => how === 'ack' || how === 'cursor');
    if (by === undefined) return;
    // Somebody may have taken the id of a row that was gone, as a verifier of version 0.1 can: then it is theirs.
    // Nor is what another history allowed, by a cursor of that history: such a stream ends within two leases.
    if (by === 'cursor' && stream.openedMs < made.movedMs) return;
    if (by === 'cursor' && this.#victims.weights.holder + this.#victims.weights.signer > 0) return;
    if (!stream.gateway.streams.includes(stream)) return; // its process has died
    this.#break(
      `${stream.gateway.name}: a stream of ${stream.token.name} is open although "${made.change.name}" was confirmed by ${by}`,
    );
  }

  /** Whatever becomes of the verifier, a stream outlives its token by two leases at most, in its own machine's time. */
  #watchStreams(): void {
    for (const stream of this.#streams) {
      if (stream.cut || !stream.gateway.streams.includes(stream) || !stream.gateway.machine.running) continue;
      for (const { change, effectiveMs, undone } of this.#made) {
        if (effectiveMs === undefined || undone || !change.hits(stream.token, stream.requirement)) continue;
        const sinceMs = Math.max(effectiveMs, stream.gateway.runningSinceMs);
        const boundMs = 2 * this.#lapsedMs() + STREAM_RECHECK_MS + SLACK_MS;
        if (this.#schedule.nowMs - sinceMs > boundMs)
          this.#break(
            `${stream.gateway.name}: a stream of ${stream.token.name} is open ${boundMs.toFixed(0)} ms after "${change.name}"`,
          );
      }
    }
  }

  #break(what: string): void {
    this.#note(`BROKEN: ${what}`);
    this.#violation ??= what;
  }

  #note(text: string): void {
    if (this.#keepHistory) this.#history.push(`${this.#schedule.nowMs.toFixed(1).padStart(9)} ${text}`);
  }
}
