import { REDIS } from '@latchkey/contracts';
import type { LeaseRefused } from '@latchkey/token-service/invalidation';
import type { Requirement, Verdict, Verifier } from '@latchkey/verifier';
import { Machine } from './machine.js';
import { Away, call, goodLine } from './network.js';
import type { Replica, Surroundings } from './replica.js';
import type { Rooms } from './shipped.js';
import type { Token } from './town.js';

/** How long a gateway waits for an answer of the token-service. */
export const RPC_DEADLINE_MS = 250;

/** A stream that was opened for an allowed request. */
export interface OpenStream {
  readonly gateway: Gateway;
  /** All ids that its process has had. */
  readonly verifierIds: ReadonlySet<string>;
  readonly token: Token;
  readonly requirement: Requirement;
  /** In true time. */
  readonly openedMs: number;
  cut: boolean;
}

/** What the connection of a gateway makes of a refusal. */
function refusedAsGrpcSays({ RenewalRefused }: Rooms, error: unknown): unknown {
  const { name, reason, message } = error as LeaseRefused;
  if (name !== 'LeaseRefused') return error;
  return new RenewalRefused(reason === 'ended' || reason === 'foreign' ? 'identity' : 'later', message);
}

/** One process that answers checks: the shipped verifier, its lines to the token-service and to Redis. */
export class Gateway {
  readonly machine: Machine;
  /** To the token-service, and to Redis. */
  readonly line = goodLine();
  readonly redisLine = goodLine();
  verifier: Verifier | undefined;
  /** The ids that the process which runs now has had, and its claim. */
  ids = new Set<string>();
  claim = '';
  /** Called with an acknowledgement that no message of a token-service stands behind. */
  onMadeUp: () => void = () => undefined;
  /** Streams of the process that runs now. */
  streams: OpenStream[] = [];
  readonly #around: Surroundings;
  readonly #replicas: readonly Replica[];

  constructor(
    readonly name: string,
    around: Surroundings,
    replicas: readonly Replica[],
  ) {
    this.#around = around;
    this.#replicas = replicas;
    this.machine = new Machine(around.schedule, around.random);
  }
  start(): void {
    if (this.verifier) return;
    const { random, redis, rooms, said } = this.#around;
    const { machine, redisLine } = this;
    this.streams = [];
    const ids = new Set<string>();
    this.ids = ids;
    const verifier = new rooms.Verifier({
      name: this.name,
      newClaim: () => {
        this.claim = Buffer.from(random.bytes(32)).toString('base64url');
        return this.claim;
      },
      clock: machine,
      source: {
        lookup: (hash) => this.#call((replica) => replica.lookup(hash)),
        renew: async (request) => {
          const answer = await this.#call((replica) => replica.renew(request)).catch((error: unknown) => {
            throw refusedAsGrpcSays(rooms, error);
          });
          ids.add(answer.verifierId);
          return answer;
        },
        release: (request) => this.#call((replica) => replica.release(request)),
      },
      feed: {
        subscribe: (hear) => redis.subscribe(REDIS.invalidations, machine, redisLine, hear),
        acknowledge: (text) => {
          if (!said.covers(text)) this.onMadeUp();
          return redis.publish(REDIS.acknowledgements, redisLine, text);
        },
      },
      limits: { renewRetryMs: 40, refusedRetryMs: 100, entriesMax: random.pick([2, 50]) },
    });
    this.verifier = verifier;
    machine.deliver(() => void verifier.start());
  }

  /** How often the process that runs now has emptied its memory. */
  resets(): number {
    return this.verifier?.counters.resets ?? 0;
  }

  /** Since when this machine has neither been paused nor slept, in true time. */
  get runningSinceMs(): number {
    return this.machine.runningSinceMs;
  }

  /** The process dies with all it knows. */
  kill(): void {
    this.machine.kill();
    this.verifier = undefined;
    this.streams = [];
  }

  /** The process stops in order; whoever calls starts another when that is done. */
  stop(then: () => void): void {
    const { verifier } = this;
    if (!verifier) return;
    this.machine.deliver(() => void verifier.stop().then(then));
  }

  /** Asks the verifier as soon as the process can; `begin` is called at that moment, `end` with the verdict. */
  check(
    token: Token,
    requirement: Requirement,
    begin: (verifier: Verifier) => void,
    end: (verdict: Verdict) => void,
  ): void {
    const { verifier, machine } = this;
    if (!verifier) return;
    machine.deliver(() => {
      if (this.verifier !== verifier) return;
      begin(verifier);
      const verdict = verifier.verify(token.secret, requirement);
      if (verdict instanceof Promise) void verdict.then(end);
      else end(verdict);
    });
  }

  watch(token: Token, requirement: Requirement, onCut: (reason: string) => void): OpenStream | undefined {
    const { verifier } = this;
    if (!verifier) return undefined;
    const stream: OpenStream = {
      gateway: this,
      verifierIds: this.ids,
      token,
      requirement,
      openedMs: this.machine.nowMs,
      cut: false,
    };
    this.streams.push(stream);
    verifier.watch(token.secret, requirement, {
      cut: (reason) => {
        onCut(reason);
        stream.cut = true;
        this.streams = this.streams.filter((one) => one !== stream);
      },
    });
    return stream;
  }

  #call<T>(handle: (replica: Replica) => Promise<T>): Promise<T> {
    const { random } = this.#around;
    const alive = this.#replicas.filter((replica) => replica.alive);
    if (alive.length === 0) return Promise.reject(new Away('connection refused'));
    const replica = random.pick(alive);
    return call(random, this.machine, replica.machine, [this.line, replica.line], RPC_DEADLINE_MS, () =>
      handle(replica),
    );
  }
}
