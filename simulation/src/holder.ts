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
import { Away, call, goodLine } from './network.js';
import { FIRST_PARTY, type Replica, SIGNING_SECRET, type Surroundings } from './replica.js';

const DEADLINE_MS = 250;
/** Longest that the holder keeps genuine messages back, so that its own come first. */
const HELD_BACK_MS = 150;
const CALLER: LeaseCaller = { id: 'token:holder', firstParty: false, holder: 'user:holder' };
/** A cursor that says that everything has been applied. */
const FAR = '9000000000000000000';

/**
 * Somebody with a token of their own, leases and all the keys that come with them, who reads and says on Redis whatever
 * they like and keeps back what others say. They know every verifier's id, and even the gateways' claims; or else the
 * credential that all gateways share, and no claim.
 */
export class Holder {
  readonly #around: Surroundings;
  readonly #gateways: readonly Gateway[];
  readonly #replicas: readonly Replica[];
  readonly #machine: Machine;
  readonly #line = goodLine();
  /** Every key that came with a renewal. */
  readonly #keys = new Map<string, Uint8Array>();
  #active = false;
  /** The holder has the key that signs as well. */
  #signs = false;

  constructor(around: Surroundings, gateways: readonly Gateway[], replicas: readonly Replica[]) {
    this.#around = around;
    this.#gateways = gateways;
    this.#replicas = replicas;
    this.#machine = new Machine(around.schedule, around.random);
    around.redis.spy = (channel, text) => {
      if (channel === REDIS.invalidations) this.#onInvalidations(text);
    };
  }

  /** Begins to attack; the answer ends that. */
  attack(signs: boolean): () => void {
    const { redis, random, schedule } = this.#around;
    this.#active = true;
    this.#signs ||= signs;
    redis.keepBackMs = () => (random.chance(0.7) ? random.float() * HELD_BACK_MS : 0);
    const again = () => {
      if (!this.#active) return;
      this.#takeLeases();
      schedule.after(random.spread(20, 300), again);
    };
    again();
    return () => {
      this.#active = false;
      redis.keepBackMs = () => 0;
    };
  }

  /** A lease of its own; and whatever it is given for the ids and the claims of others. */
  #takeLeases(): void {
    const { random } = this.#around;
    const cursor = { log: this.#around.db.tables.log, xid: FAR };
    const base = { name: 'holder', cursor: null, version: '', verifierId: '', claim: '', nonce: '' };
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

  /** Somebody else's lease, with the right credential or another, and a claim that is not the lease's. */
  #releaseOf(verifierId: string): void {
    const { random } = this.#around;
    const claim = random.chance(0.5) ? '' : Buffer.from(random.bytes(32)).toString('base64url');
    const caller = random.chance(0.5) ? FIRST_PARTY : CALLER;
    this.#ask((replica) => replica.release({ verifierId, claim }, caller)).catch(() => undefined); // refused, or away
  }

  #ask<T>(what: (replica: Replica) => Promise<T>): Promise<T> {
    const { random } = this.#around;
    const alive = this.#replicas.filter((replica) => replica.alive);
    if (alive.length === 0) return Promise.reject(new Away('nobody is there'));
    const replica = random.pick(alive);
    const lines = [this.#line, replica.line];
    return call(random, this.#machine, replica.machine, lines, DEADLINE_MS, () => what(replica));
  }

  #renew(request: RenewRequest, release: boolean): void {
    this.#ask((replica) => replica.renew(request, CALLER)).then(
      ({ verifierId, ackKey, usageKey, feedKey, feedKeys }) => {
        for (const key of [ackKey, usageKey, feedKey, ...feedKeys])
          if (key.length > 0) this.#keys.set(Buffer.from(key).toString('hex'), key);
        // Given back, or it would only have to be waited for.
        if (!release) return;
        const given = { verifierId, claim: request.claim };
        this.#ask((replica) => replica.release(given, CALLER)).catch(() => undefined);
      },
      () => undefined, // refused, or away
    );
  }

  #onInvalidations(text: string): void {
    if (!this.#active) return;
    const event = parseInvalidationEvent(text);
    if (!event) return;
    const { random } = this.#around;
    if (random.chance(0.8)) for (const forged of this.#forgeries(event)) this.#say(REDIS.invalidations, forged);
    if (random.chance(0.8))
      for (const forged of this.#acknowledgements(event)) this.#say(REDIS.acknowledgements, forged);
  }

  /** Other content under the same ids, as well signed as the holder can. */
  #forgeries(event: InvalidationEvent): unknown[] {
    const { random } = this.#around;
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
    const { random } = this.#around;
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
        // What a key would be if it were derived from a key of the holder's.
        const derived = [...this.#keys.values()].map((key) =>
          acknowledgementKey(key, { verifierId, caller: 'first-party', salt: new Uint8Array(0) }),
        );
        return [...this.#keys.values(), ...derived].map((key) => signAcknowledgement(key, verifierId, digests));
      }),
    );
  }

  #say(channel: string, event: unknown): void {
    const { redis, schedule, random } = this.#around;
    schedule.after(random.float() * 5, () => redis.say(channel, JSON.stringify(event)));
  }
}
