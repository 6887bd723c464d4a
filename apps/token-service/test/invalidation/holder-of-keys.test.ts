import { createHmac } from 'node:crypto';
import {
  acknowledgementKey,
  digestOf,
  feedSigner,
  INVALIDATIONS_PER_EVENT_MAX,
  type Invalidation,
  REDIS,
  type RenewResponse,
  signAcknowledgement,
  signInvalidations,
} from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { Cluster, EVENTS_SECRET, newClaim, type Replica, SIGNING_SECRET, thirdParty } from './harness.js';

let cluster: Cluster;
let attacker: Redis;
beforeAll(async () => {
  cluster = await Cluster.open();
  attacker = new Redis(cluster.redis.url);
});
afterEach(() => cluster.reset());
afterAll(async () => {
  attacker.disconnect();
  await cluster.close();
});

const ATTACKER = thirdParty();
const request = () => ({ verifierId: '', name: 'attacker', cursor: null, claim: newClaim(), version: '' });
const publish = (event: unknown) => attacker.publish(REDIS.invalidations, JSON.stringify(event));
const acknowledge = (event: unknown) => attacker.publish(REDIS.acknowledgements, JSON.stringify(event));
const keysOf = ({ ackKey, usageKey, feedKey, feedKeys }: RenewResponse) =>
  [ackKey, usageKey, feedKey, ...feedKeys].filter((key) => key.length > 0);
const sumOf = (counts: Record<string, number>) => Object.values(counts).reduce((sum, count) => sum + count, 0);

/** The same invalidation with harmless content, signed with each key in every way. */
function forgeries(log: string, invalidation: Invalidation, keys: readonly Uint8Array[]): unknown[] {
  const harmless = { ...invalidation, kind: 'misses', subject: '', cut: false } as const;
  return keys.flatMap((key) => {
    const event = signInvalidations(feedSigner(key), log, [harmless]);
    const mac = createHmac('sha256', key).update('x').digest('base64url');
    return [event, { ...event, key: feedSigner(SIGNING_SECRET).id }, { log, invalidation: harmless, mac }];
  });
}

describe('an attacker with a lease who can publish anything on Redis', () => {
  it('an attacker with a lease cannot make another verifier skip an invalidation: no key of a renewal signs one', async () => {
    const replica = await cluster.replica(1_000);
    const gateway = await cluster.gateway();
    const { secret, id } = await cluster.token();
    const keys = keysOf(await replica.leases.renew(request(), ATTACKER));
    const invalidation = await cluster.commit(replica, id);
    const { log } = await replica.log.leases();
    const forged = forgeries(log, invalidation, keys);
    for (const event of forged) await publish(event);
    await waitFor(() => sumOf(gateway.verifier.counters.messagesDropped) === forged.length);
    const effect = await replica.confirmations.confirm([invalidation]);
    expect(await gateway.accepts(secret)).toBe(false);
    expect(effect.receipt!.verifiers).toContainEqual(expect.objectContaining({ id: gateway.verifier.id, by: 'ack' }));
  });

  it('even the signing key cannot make a verifier skip an invalidation: it is identified by its whole content, as is its acknowledgement', async () => {
    // So long that no regular renewal comes between.
    const replica = await cluster.replica(20_000);
    const gateway = await cluster.gateway();
    const { secret, id } = await cluster.token();
    const invalidation = await cluster.commit(replica, id);
    const { log } = await replica.log.leases();
    const harmless = { ...invalidation, kind: 'misses', subject: '', cut: false } as const;
    await publish(signInvalidations(feedSigner(SIGNING_SECRET), log, [harmless]));
    await waitFor(() => gateway.verifier.counters.acknowledgements === 1);
    const { resets } = gateway.verifier.counters;
    const { receipt } = await replica.confirmations.confirm([invalidation]);
    expect(await gateway.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toHaveLength(1);
    expect(gateway.verifier.counters.messagesDropped.conflict).toBeGreaterThan(0);
    expect(gateway.verifier.counters.resets).toBeGreaterThan(resets);
  });

  it('an attacker with a lease cannot acknowledge for another verifier, nor for a deleted lease', async () => {
    const replica = await cluster.replica(1_000);
    const gateway = await cluster.gateway();
    const own = await replica.leases.renew(request(), ATTACKER);
    const formerId = gateway.verifier.id!;
    const [row] = await cluster.database.query('SELECT key_salt FROM leases WHERE verifier_id = $1', [formerId]);
    const former = acknowledgementKey(EVENTS_SECRET, {
      verifierId: formerId,
      caller: 'first-party',
      salt: row!['key_salt'],
    });
    // The gateway is cut off until its row is reaped; the attacker requests its id and its claim.
    gateway.authorityUnavailable = true;
    await waitFor(
      async () => {
        await replica.leases.reap();
        return (await cluster.database.query('SELECT 1 FROM leases WHERE verifier_id = $1', [formerId])).length === 0;
      },
      { timeoutMs: 5_000 },
    );
    const taken = await Promise.all([
      replica.leases.renew({ ...request(), claim: '', verifierId: formerId }, ATTACKER).catch(() => null),
      replica.leases.renew({ ...request(), claim: gateway.claim }, ATTACKER),
    ]);
    const claims = ['', gateway.claim];
    await Promise.all(
      taken.map(
        (response, i) =>
          response && replica.leases.release({ verifierId: response.verifierId, claim: claims[i]! }, ATTACKER.id),
      ),
    );
    gateway.authorityUnavailable = false;
    await waitFor(() => gateway.verifier.state().leaseHeld);
    expect(gateway.verifier.id).not.toBe(formerId);

    const { secret, id } = await cluster.token();
    gateway.feed.close();
    gateway.authorityUnavailable = true;
    const invalidation = await cluster.commit(replica, id);
    const { log } = await replica.log.leases();
    const confirming = replica.confirmations.confirm([invalidation]);
    await waitFor(() => replica.confirmations.pending === 1);
    const digests = [digestOf(log, invalidation)];
    const keys = [former, ...keysOf(own), ...taken.flatMap((response) => (response ? keysOf(response) : []))];
    for (const verifier of [gateway.verifier.id!, formerId])
      for (const key of keys) await acknowledge(signAcknowledgement(key, verifier, digests));
    const { receipt } = await confirming;
    expect(await gateway.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toContainEqual(expect.objectContaining({ id: gateway.verifier.id, by: 'lease' }));
    // Acknowledgements that arrive after the wait are dropped unchecked.
    const dropped = () => {
      const { not_authentic: notAuthentic, not_awaited: notAwaited } = replica.confirmations.acknowledgementsDropped;
      return { notAuthentic, all: notAuthentic + notAwaited };
    };
    await waitFor(() => dropped().all >= 2 * keys.length);
    expect(dropped().notAuthentic).toBeGreaterThan(0);
  });

  it('an attacker with a lease cannot block the return of a gateway by renewing its id or its claim', async () => {
    const replica = await cluster.replica(500);
    const gateway = await cluster.gateway();
    const formerId = gateway.verifier.id!;
    gateway.authorityUnavailable = true;
    await waitFor(async () => (await replica.leases.reap()) > 0, { timeoutMs: 5_000 });
    const old = { ...request(), claim: '', verifierId: formerId };
    const squatting = setInterval(() => {
      for (const one of [old, { ...request(), claim: gateway.claim }])
        void replica.leases.renew(one, ATTACKER).catch(() => undefined);
    }, 50);
    await replica.leases.renew(old, ATTACKER);
    gateway.authorityUnavailable = false;
    await waitFor(() => gateway.verifier.state().leaseHeld);
    clearInterval(squatting);
    expect(gateway.verifier.counters.renewalsRefused).toBe(0);
  });

  it('messages of an attacker cause only a bounded amount of work', async () => {
    const replica = await cluster.replica(10_000);
    const gateway = await cluster.gateway();
    const { secret, id } = await cluster.token();
    const genuine = signInvalidations(feedSigner(SIGNING_SECRET), newId(), [
      { id: newId(), kind: 'everything', subject: '', cut: true, xid: '1' },
    ]);
    // Genuine messages of another log, and forged ones of this log.
    const flood: string[] = [];
    for (let i = 0; i < 3_000; i++)
      flood.push(JSON.stringify(i % 2 ? genuine : { ...genuine, signature: 'A'.repeat(86) }));
    const { resets, renewals, invalidationsApplied } = gateway.verifier.counters;
    const pipeline = attacker.pipeline();
    for (const text of flood) pipeline.publish(REDIS.invalidations, text);
    await pipeline.exec();
    await waitFor(() => sumOf(gateway.verifier.counters.messagesDropped) >= 3_000, { timeoutMs: 20_000 });
    const { counters } = gateway.verifier;
    expect(counters.messagesDropped.not_authentic + counters.messagesDropped.other_log).toBeLessThanOrEqual(3_000);
    expect(counters).toMatchObject({ resets, invalidationsApplied });
    expect(counters.renewals - renewals).toBeLessThanOrEqual(5);
    expect(await gateway.accepts(secret)).toBe(true);
    const { receipt } = await replica.confirmations.confirm([await cluster.commit(replica, id)]);
    expect(receipt!.verifiers).toHaveLength(1);
    expect(await gateway.accepts(secret)).toBe(false);
  });
});

describe('invalid acknowledgements', () => {
  let replica: Replica;
  const cases: [
    string,
    'too_long' | 'malformed' | 'not_awaited' | 'not_authentic',
    (verifier: string, digest: string) => string,
  ][] = [
    ['text that is not JSON', 'malformed', () => 'not json'],
    ['an empty text', 'malformed', () => ''],
    ['null', 'malformed', () => 'null'],
    ['version 2', 'malformed', (verifier) => JSON.stringify({ verifier, invalidation: newId(), mac: 'A' })],
    [
      'an extra field',
      'malformed',
      (verifier, digest) => JSON.stringify({ ...signAcknowledgement(Buffer.from('k'), verifier, [digest]), extra: 1 }),
    ],
    [
      'a truncated text',
      'malformed',
      (verifier, digest) => JSON.stringify(signAcknowledgement(Buffer.from('k'), verifier, [digest])).slice(0, -9),
    ],
    ['no digest', 'malformed', (verifier) => JSON.stringify(signAcknowledgement(Buffer.from('k'), verifier, []))],
    [
      'more digests than one message has',
      'malformed',
      (verifier, digest) =>
        JSON.stringify(
          signAcknowledgement(Buffer.from('k'), verifier, new Array(INVALIDATIONS_PER_EVENT_MAX + 1).fill(digest)),
        ),
    ],
    [
      'an invalid digest',
      'malformed',
      (verifier) => JSON.stringify(signAcknowledgement(Buffer.from('k'), verifier, ['x'])),
    ],
    [
      'a text over the limit',
      'too_long',
      (verifier, digest) =>
        `${JSON.stringify(signAcknowledgement(Buffer.from('k'), verifier, [digest]))}${' '.repeat(4_000)}`,
    ],
    [
      'a verifier that is not awaited',
      'not_awaited',
      (_, digest) => JSON.stringify(signAcknowledgement(Buffer.from('k'), newId(), [digest])),
    ],
    [
      'an invalidation that is not awaited',
      'not_awaited',
      (verifier) => JSON.stringify(signAcknowledgement(Buffer.from('k'), verifier, ['A'.repeat(43)])),
    ],
    [
      'a guessed key',
      'not_authentic',
      (verifier, digest) => JSON.stringify(signAcknowledgement(Buffer.from('k'), verifier, [digest])),
    ],
  ];

  it.each(cases)(
    'an acknowledgement with %s is dropped as %s, and the genuine one counts',
    async (_, reason, forge) => {
      replica = await cluster.replica(10_000);
      const row = await replica.leases.renew(request(), ATTACKER);
      const invalidation = await replica.invalidate('owner', newId());
      const digest = digestOf((await replica.log.leases()).log, invalidation);
      const confirming = replica.confirmations.confirm([invalidation]);
      await waitFor(() => replica.confirmations.pending === 1);
      await attacker.publish(REDIS.acknowledgements, forge(row.verifierId, digest));
      await waitFor(() => replica.confirmations.acknowledgementsDropped[reason] === 1);
      expect(replica.confirmations.pending).toBe(1);
      const genuine = signAcknowledgement(row.ackKey, row.verifierId, [digest]);
      await acknowledge(genuine);
      expect((await confirming).receipt!.verifiers).toMatchObject([{ id: row.verifierId, by: 'ack' }]);
      // Repeated after the confirmation, it is dropped.
      const { not_awaited: before } = replica.confirmations.acknowledgementsDropped;
      await acknowledge(genuine);
      await waitFor(() => replica.confirmations.acknowledgementsDropped.not_awaited === before + 1);
    },
  );
});

describe('the signing key of the feed', () => {
  const NEXT = Buffer.from('the next signing secret of the tests');
  const signerOf = (one: Replica) => one.feedKeys.signer.id;
  const [current, next] = [feedSigner(SIGNING_SECRET).id, feedSigner(NEXT).id];

  it('the signing key is the first of the list while no other has been announced', async () => {
    expect(signerOf(await cluster.replica(500, [SIGNING_SECRET, NEXT]))).toBe(current);
  });

  it('a new signing key is used only after it has been announced for as long as any lease lasts', async () => {
    await cluster.replica(500);
    await cluster.database.query(`UPDATE feed_keys SET announced_at = now() - interval '1 minute'`);
    const rotating = await cluster.replica(500, [NEXT, SIGNING_SECRET]);
    expect(rotating.feedKeys.publicKeys).toHaveLength(2);
    expect(signerOf(rotating)).toBe(current);
    await waitFor(() => signerOf(rotating) === next, { timeoutMs: 5_000 });
    // Another replica that starts now uses it at once.
    expect(signerOf(await cluster.replica(500, [NEXT, SIGNING_SECRET]))).toBe(next);
  });

  it('replacing a compromised signing key at once costs acknowledgements until the next renewal, and nothing else', async () => {
    const old = await cluster.replica(1_500);
    const gateway = await cluster.gateway();
    const { secret, id } = await cluster.token();
    const replaced = await cluster.replica(1_500, [NEXT]);
    cluster.replicas.splice(cluster.replicas.indexOf(old), 1);
    expect(signerOf(replaced)).toBe(next);
    const effect = await replaced.confirmations.confirm([await cluster.commit(replaced, id)]);
    expect(effect.effective).toBe(true);
    expect(await gateway.accepts(secret)).toBe(false);
    await waitFor(() => gateway.verifier.counters.messagesDropped.unknown_key > 0);
    const again = await cluster.token();
    await replaced.confirmations.confirm([await cluster.commit(replaced, again.id)]);
    expect(await gateway.accepts(again.secret)).toBe(false);
    await old.close();
  });
});
