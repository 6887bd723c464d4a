import type { Effect } from '@latchkey/contracts';
import type { Requirement, Verdict } from '@latchkey/verifier';
import type { Gateway, OpenStream } from './gateway.js';
import { SLOWEST } from './machine.js';
import type { Token } from './model.js';
import type { ChangeState, Check } from './outcome.js';
import { type Environment, NOTICED_WITHIN_MS, type Replica } from './replica.js';

/** What confirming may take besides leases: timers, statements, a client that retries. */
export const SLACK_MS = 1_500;
const STREAM_RECHECK_MS = 250;
/** Longer than the resolution of the uptime, and of timers. */
const CLOCKS_STEP_MS = 20;

interface Options {
  /** The longest that a lease can last in true time, its drift allowance included. */
  readonly lapsedMs: () => number;
  /** Whether the faults of this world include an attacker. */
  readonly isAttacked: boolean;
  readonly note: (text: string) => void;
}

/** What must hold in a world, and the changes, tokens and streams that it depends on. */
export class Invariants {
  readonly changes: ChangeState[] = [];
  /** Tokens whose issue or import is known to have been committed. */
  readonly present = new Set<Token>();
  readonly streams: OpenStream[] = [];
  /** The first broken invariant, in a sentence. */
  violation: string | undefined;
  readonly #env: Environment;
  readonly #options: Options;
  /** From when a token issued on a new primary must be known to replicas that may still read the old one. */
  readonly #knownFromMs = new Map<Token, number>();
  #promotedMs = Number.NEGATIVE_INFINITY;
  #canForget = false;
  #canUndo = false;
  #log: string;
  readonly #logs = new Set<string>();
  /** The start of the server under which the last log was begun. */
  #logBegunIn = 0;

  constructor(env: Environment, options: Options) {
    this.#env = env;
    this.#options = options;
    this.#log = env.db.tables.log;
    this.#logs.add(this.#log);
  }

  broken(what: string): void {
    this.#options.note(`BROKEN: ${what}`);
    this.violation ??= what;
  }

  pending(): ChangeState[] {
    return this.changes.filter(({ effectiveMs, undone }) => effectiveMs === undefined && !undone);
  }

  promoted(): void {
    this.#canForget = true;
    this.#promotedMs = this.#nowMs;
  }

  /** A token's issue was committed; a replica that still reads a deposed primary may not know it yet. */
  issued(token: Token): void {
    this.#knownFromMs.set(token, this.#promotedMs + this.#options.lapsedMs());
    if (this.#env.db.tables.rights.tokens.has(token.hash)) this.present.add(token);
  }

  /**
   * A backup was restored: what was committed after it has never been.
   * @returns changes that were undone and are back; whether they are effective must be asked again
   */
  restored(): ChangeState[] {
    this.#canForget = true;
    this.#canUndo = true;
    const { changes, rights } = this.#env.db.tables;
    const back: ChangeState[] = [];
    for (const state of this.changes) {
      state.restoredMs = this.#nowMs;
      if (!changes.has(state.id)) state.undone = true;
      else if (state.undone) {
        state.undone = false;
        state.effectiveMs = undefined;
        state.by.clear();
        state.era++;
        back.push(state);
      }
    }
    for (const token of [...this.present]) if (!rights.tokens.has(token.hash)) this.present.delete(token);
    return back;
  }

  /** What is known about a check at the moment that it begins. */
  beginCheck(gateway: Gateway, token: Token, requirement: Requirement): Omit<Check, 'calm' | 'faults'> {
    return {
      gateway,
      token,
      requirement,
      begunMs: this.#nowMs,
      forbidden: this.changes.find(
        ({ change, effectiveMs, undone }) => effectiveMs !== undefined && !undone && change.hits(token, requirement),
      ),
      entitled: this.#isEntitled(token, requirement),
    };
  }

  /** @param isCalm whether no fault lasted or began during the check, nor shortly before */
  checkVerdict(check: Check, verdict: Verdict, isCalm: boolean): void {
    const { gateway, token, requirement, begunMs, forbidden, entitled } = check;
    const asked = `${gateway.name}: ${token.name} for ${requirement.scopes.join()}${requirement.project ? ` in project ${this.#env.model.projects.indexOf(requirement.project)}` : ''}`;
    this.#options.note(`${asked}, begun at ${begunMs.toFixed(1)}: ${verdict.allowed ? 'allowed' : verdict.reason}`);
    if (verdict.allowed) {
      // Undone meanwhile, and perhaps put back since.
      if (!forbidden || forbidden.undone || !((forbidden.effectiveMs ?? Number.POSITIVE_INFINITY) <= begunMs)) return;
      if (begunMs <= gateway.machine.hiddenUntilMs) return;
      const at = forbidden.effectiveMs!.toFixed(1);
      this.broken(
        `${asked} was allowed in a check begun at ${begunMs.toFixed(1)}, although "${forbidden.change.name}" had been effective since ${at}`,
      );
      return;
    }
    if (!entitled) return;
    const transient = verdict.reason === 'unavailable' || verdict.reason === 'rate_limited';
    // A change that took the token's right away meanwhile may have overtaken each of the check's requests.
    if (this.#isEntitled(token, requirement) && (!transient || isCalm))
      this.broken(
        `${asked} was refused as ${verdict.reason} in a check begun at ${begunMs.toFixed(1)}, although nothing forbids it`,
      );
  }

  /**
   * Whether a response about a change must take the last restore into account. Before, what was read earlier may still
   * be used.
   */
  isNoticed({ restoredMs }: ChangeState): boolean {
    return this.#nowMs - restoredMs > NOTICED_WITHIN_MS / SLOWEST + CLOCKS_STEP_MS;
  }

  /** A change that the database has forgotten was reported to be effective. */
  checkForgotten(state: ChangeState, { receipt }: Effect, replica: Replica): void {
    const { change, id } = state;
    if (this.#env.db.tables.changes.has(id)) return; // it came late, and was made in this history
    if (replica.readFrom?.changes.has(id) !== false && !this.isNoticed(state)) return;
    const how = receipt?.verifiers.map(({ by }) => by).join(', ');
    this.broken(`"${change.name}" is effective (${how}) according to ${replica.name}, although it has been forgotten`);
  }

  /** A change was reported to be forgotten. */
  checkKnown({ change, id }: ChangeState): void {
    if (this.#canUndo) return;
    if (this.#env.db.tables.invalidations.some((row) => row.id === id))
      this.broken(`${change.name} was reported as forgotten, although it is known`);
  }

  /** Streams that a change forbids have been cut where their verifier confirmed it by acknowledgement or cursor. */
  checkStreams(state: ChangeState): void {
    for (const stream of this.streams) this.#checkStream(stream, state);
  }

  #checkStream(stream: OpenStream, { change, by: confirmed, restoredMs }: ChangeState): void {
    if (stream.cut || !change.cut || !change.hits(stream.token, stream.requirement)) return;
    const by = [...stream.verifierIds].map((id) => confirmed.get(id)).find((how) => how === 'ack' || how === 'cursor');
    if (by === undefined) return;
    // An attacker may have taken the id of a row that was gone, as a verifier of version 0.1 can: then it is theirs.
    // Nor does it hold for what another history allowed, by a cursor of that history: such a stream ends within two leases.
    if (by === 'cursor' && stream.openedMs < restoredMs) return;
    if (by === 'cursor' && this.#options.isAttacked) return;
    if (!stream.gateway.streams.includes(stream)) return; // its process has died
    this.broken(
      `${stream.gateway.name}: a stream of ${stream.token.name} is open although "${change.name}" was confirmed by ${by}`,
    );
  }

  /** What must hold whenever time has passed. */
  timePassed(): void {
    this.#checkStreamAges();
    this.#checkLog();
  }

  /** A stream outlives its token by two leases at most, in its own machine's time. */
  #checkStreamAges(): void {
    for (const stream of this.streams) {
      if (stream.cut || !stream.gateway.streams.includes(stream) || !stream.gateway.machine.running) continue;
      for (const { change, effectiveMs, undone } of this.changes) {
        if (effectiveMs === undefined || undone || !change.hits(stream.token, stream.requirement)) continue;
        const sinceMs = Math.max(effectiveMs, stream.gateway.runningSinceMs);
        const boundMs = 2 * this.#options.lapsedMs() + STREAM_RECHECK_MS + SLACK_MS;
        if (this.#nowMs - sinceMs > boundMs)
          this.broken(
            `${stream.gateway.name}: a stream of ${stream.token.name} is open ${boundMs.toFixed(0)} ms after "${change.name}"`,
          );
      }
    }
  }

  /** No new log, which empties every verifier's memory, is begun while history has not been forgotten. */
  #checkLog(): void {
    const { log, begunIn } = this.#env.db.tables;
    if (log === this.#log) return;
    this.#options.note('a new log is begun');
    if (!this.#canForget) this.broken('a new log was begun although history has forgotten nothing');
    this.#log = log;
    if (this.#logs.has(log)) return; // put back with its folder
    this.#logs.add(log);
    if (this.#logBegunIn === begunIn) this.broken('a second log was begun under one start of the server');
    this.#logBegunIn = begunIn;
  }

  /** Whether the token exists, and no change that takes this right away has begun. */
  #isEntitled(token: Token, requirement: Requirement): boolean {
    if ((this.#knownFromMs.get(token) ?? 0) > this.#nowMs) return false;
    if (!this.present.has(token) || this.changes.some(({ change }) => change.hits(token, requirement))) return false;
    const { project } = requirement;
    return project === undefined || token.kind === 'pat' || token.project === project;
  }

  get #nowMs(): number {
    return this.#env.schedule.nowMs;
  }
}
