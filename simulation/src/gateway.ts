import { REDIS } from '@latchkey/contracts';
import type { LeaseRefused } from '@latchkey/token-service/invalidation';
import type { Requirement, Verdict, Verifier } from '@latchkey/verifier';
import { Machine } from './machine.js';
import type { Token } from './model.js';
import { call, goodLine, Unavailable } from './network.js';
import type { Environment, Replica } from './replica.js';
import type { Modules } from './shipped.js';

/** How long a gateway waits for a response of the token-service. */
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

/** Maps an error of the token-service as the gateway's gRPC client does. */
function mapRenewalError({ RenewalRefused }: Modules, error: unknown): unknown {
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
  /** The ids that the running process has had, and its claim. */
  ids = new Set<string>();
  claim = '';
  /** Called when the verifier acknowledges what no token-service has published. */
  onForgedAcknowledgement: () => void = () => undefined;
  /** Streams of the running process. */
  streams: OpenStream[] = [];
  readonly #env: Environment;
  readonly #replicas: readonly Replica[];

  constructor(
    readonly name: string,
    env: Environment,
    replicas: readonly Replica[],
  ) {
    this.#env = env;
    this.#replicas = replicas;
    this.machine = new Machine(env.schedule, env.random);
  }
  start(): void {
    if (this.verifier) return;
    const { random, redis, modules, published } = this.#env;
    const { machine, redisLine } = this;
    this.streams = [];
    const ids = new Set<string>();
    this.ids = ids;
    const verifier = new modules.Verifier({
      name: this.name,
      newClaim: () => {
        this.claim = Buffer.from(random.bytes(32)).toString('base64url');
        return this.claim;
      },
      clock: machine,
      source: {
        lookup: (hash) => this.#call((replica) => replica.lookup(hash)),
        renew: async (request) => {
          const response = await this.#call((replica) => replica.renew(request)).catch((error: unknown) => {
            throw mapRenewalError(modules, error);
          });
          ids.add(response.verifierId);
          return response;
        },
        release: (request) => this.#call((replica) => replica.release(request)),
      },
      feed: {
        subscribe: (onMessage) => redis.subscribe(REDIS.invalidations, machine, redisLine, onMessage),
        acknowledge: (text) => {
          if (!published.covers(text)) this.onForgedAcknowledgement();
          return redis.publish(REDIS.acknowledgements, redisLine, text);
        },
      },
      limits: { renewRetryMs: 40, refusedRetryMs: 100, entriesMax: random.pick([2, 50]) },
    });
    this.verifier = verifier;
    machine.deliver(() => void verifier.start());
  }

  /** How often the running process has emptied its memory. */
  resets(): number {
    return this.verifier?.counters.resets ?? 0;
  }

  /** Since when this machine has neither been paused nor slept, in true time. */
  get runningSinceMs(): number {
    return this.machine.runningSinceMs;
  }

  /** The process dies, and its memory with it. */
  kill(): void {
    this.machine.kill();
    this.verifier = undefined;
    this.streams = [];
  }

  /** The process stops in order; the caller starts another in `then`. */
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
    const { random } = this.#env;
    const alive = this.#replicas.filter((replica) => replica.alive);
    if (alive.length === 0) return Promise.reject(new Unavailable('connection refused'));
    const replica = random.pick(alive);
    return call(random, this.machine, replica.machine, [this.line, replica.line], RPC_DEADLINE_MS, () =>
      handle(replica),
    );
  }
}
