import { createHmac } from 'node:crypto';
import {
  acknowledgementKey,
  digestOf,
  feedSigner,
  type Invalidation,
  type InvalidationEvent,
  parseInvalidationEvent,
  REDIS,
  type RenewRequest,
  signAcknowledgement,
  signInvalidations,
} from '@latchkey/contracts';
import type { LeaseCaller } from '@latchkey/token-service/invalidation';
import type { Gateway } from './gateway.js';
import { Machine } from './machine.js';
import { call, goodLine, Unavailable } from './network.js';
import { type Environment, FIRST_PARTY, type Replica, SIGNING_SECRET } from './replica.js';

const DEADLINE_MS = 250;
/** Longest that the attacker delays genuine messages, so that its own come first. */
const DELAY_MS_MAX = 150;
const CALLER: LeaseCaller = { id: 'token:attacker', firstParty: false, holder: 'user:attacker' };
/** A cursor that claims that everything has been applied. */
const FAR = '9000000000000000000';

/**
 * An attacker with a token, leases and all the keys that come with them, who can read, forge and delay every message on
 * Redis. It has every verifier's id and either the gateways' claims, or the credential that all gateways share.
 */
export class Attacker {
  readonly #env: Environment;
  readonly #gateways: readonly Gateway[];
  readonly #replicas: readonly Replica[];
  readonly #machine: Machine;
  readonly #line = goodLine();
  /** Every key that came with a renewal. */
  readonly #keys = new Map<string, Uint8Array>();
  #active = false;
  /** The attacker has the signing key as well. */
  #signs = false;

  constructor(env: Environment, gateways: readonly Gateway[], replicas: readonly Replica[]) {
    this.#env = env;
    this.#gateways = gateways;
    this.#replicas = replicas;
    this.#machine = new Machine(env.schedule, env.random);
    env.redis.onPublish = (channel, text) => {
      if (channel === REDIS.invalidations) this.#onInvalidations(text);
    };
  }

  /** Begins to attack; the returned function ends that. */
  attack(signs: boolean): () => void {
    const { redis, random, schedule } = this.#env;
    this.#active = true;
    this.#signs ||= signs;
    redis.delayMs = () => (random.chance(0.7) ? random.float() * DELAY_MS_MAX : 0);
    const again = () => {
      if (!this.#active) return;
      this.#takeLeases();
      schedule.after(random.spread(20, 300), again);
    };
    again();
    return () => {
      this.#active = false;
      redis.delayMs = () => 0;
    };
  }

  /** A lease of its own, and those it is given for the ids and claims of others. */
  #takeLeases(): void {
    const { random } = this.#env;
    const cursor = { log: this.#env.db.tables.log, xid: FAR };
    const base = { name: 'attacker', cursor: null, version: '', verifierId: '', claim: '', nonce: '' };
    if (this.#keys.size === 0 || random.chance(0.1))
      this.#renew({ ...base, claim: Buffer.from(random.bytes(32)).toString('base64url') }, true);
    for (const gateway of this.#gateways) {
      if (gateway.claim) this.#renew({ ...base, claim: gateway.claim, cursor }, random.chance(0.5));
      const { ids } = gateway;
      const verifierId = [...ids].at(-1);
      if (!verifierId) continue;
      this.#renew({ ...base, verifierId, cursor }, random.chance(0.5));
      this.#releaseOf(verifierId);
    }
  }

  /** Releases another caller's lease, with the right credential or another, and a claim that is not the lease's. */
  #releaseOf(verifierId: string): void {
    const { random } = this.#env;
    const claim = random.chance(0.5) ? '' : Buffer.from(random.bytes(32)).toString('base64url');
    const caller = random.chance(0.5) ? FIRST_PARTY : CALLER;
    this.#call((replica) => replica.release({ verifierId, claim }, caller)).catch(() => undefined); // refused, or unavailable
  }

  #call<T>(what: (replica: Replica) => Promise<T>): Promise<T> {
    const { random } = this.#env;
    const alive = this.#replicas.filter((replica) => replica.alive);
    if (alive.length === 0) return Promise.reject(new Unavailable('connection refused'));
    const replica = random.pick(alive);
    const lines = [this.#line, replica.line];
    return call(random, this.#machine, replica.machine, lines, DEADLINE_MS, () => what(replica));
  }

  #renew(request: RenewRequest, release: boolean): void {
    this.#call((replica) => replica.renew(request, CALLER)).then(
      ({ verifierId, ackKey, usageKey, feedKey, feedKeys }) => {
        for (const key of [ackKey, usageKey, feedKey, ...feedKeys])
          if (key.length > 0) this.#keys.set(Buffer.from(key).toString('hex'), key);
        // Released; otherwise confirmations would wait for it.
        if (!release) return;
        const given = { verifierId, claim: request.claim };
        this.#call((replica) => replica.release(given, CALLER)).catch(() => undefined);
      },
      () => undefined, // refused, or unavailable
    );
  }

  #onInvalidations(text: string): void {
    if (!this.#active) return;
    const event = parseInvalidationEvent(text);
    if (!event) return;
    const { random } = this.#env;
    if (random.chance(0.8)) for (const forged of this.#forgeries(event)) this.#broadcast(REDIS.invalidations, forged);
    if (random.chance(0.8))
      for (const forged of this.#acknowledgements(event)) this.#broadcast(REDIS.acknowledgements, forged);
  }

  /** Other content under the same ids, signed with every key that the attacker has. */
  #forgeries(event: InvalidationEvent): unknown[] {
    const { random } = this.#env;
    const altered = event.invalidations.map((one) => this.#alter(one));
    const log = random.chance(0.9) ? event.log : random.uuid(0);
    if (this.#signs) return [signInvalidations(feedSigner(SIGNING_SECRET), log, altered)];
    const text = JSON.stringify(altered);
    const digests = ['latchkey invalidations', ...altered.map((one) => digestOf(log, one))].join('\n');
    const signatures = [event.signature, 'A'.repeat(86)];
    for (const key of this.#keys.values()) {
      signatures.push(createHmac('sha512', key).update(digests).digest('base64url'));
      signatures.push(createHmac('sha512', key).update(text).digest('base64url'));
      signatures.push(signInvalidations(feedSigner(key), log, altered).signature);
    }
    return signatures.map((signature) => ({ ...event, log, invalidations: altered, signature }));
  }

  #alter(one: Invalidation): Invalidation {
    const { random } = this.#env;
    const harmless: Invalidation = { ...one, kind: 'misses', subject: '', cut: false };
    return random.pick([
      harmless,
      harmless,
      { ...one, kind: 'token', subject: random.uuid(0) },
      { ...one, cut: false },
      { ...one, xid: '1' },
    ]);
  }

  /** In the name of every gateway, with every key. */
  #acknowledgements(event: InvalidationEvent): unknown[] {
    const digests = event.invalidations.map((one) => digestOf(event.log, one));
    return this.#gateways.flatMap(({ ids }) =>
      [...ids].slice(-2).flatMap((verifierId) => {
        // What a key would be if it were derived from one of the attacker's.
        const derived = [...this.#keys.values()].map((key) =>
          acknowledgementKey(key, { verifierId, caller: 'first-party', salt: new Uint8Array(0) }),
        );
        return [...this.#keys.values(), ...derived].map((key) => signAcknowledgement(key, verifierId, digests));
      }),
    );
  }

  #broadcast(channel: string, event: unknown): void {
    const { redis, schedule, random } = this.#env;
    schedule.after(random.float() * 5, () => redis.broadcast(channel, JSON.stringify(event)));
  }
}
