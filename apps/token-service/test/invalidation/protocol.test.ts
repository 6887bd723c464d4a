import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf, signAcknowledgement } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { faultyLink, waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { Client } from 'pg';
import { lapsedAfterMs } from '../../src/invalidation/types.js';
import { Cluster, FIRST_PARTY, SIGNING_SECRET } from './harness.js';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.open();
});
afterEach(() => cluster.reset());
afterAll(() => cluster.close());

const LEASE_MS = 1_000;

describe('a revocation that has returned', () => {
  it('after a confirmation every gateway rejects the token, by acknowledgement, whichever replica it uses', async () => {
    const [first, second] = [await cluster.replica(LEASE_MS), await cluster.replica(LEASE_MS)];
    for (let i = 0; i < 3; i++) await cluster.gateway();
    for (const replica of [first, second, first, second]) {
      const { secret, id } = await cluster.token();
      const effect = await replica.confirmations.confirm([await cluster.commit(replica, id)]);
      expect(effect.effective).toBe(true);
      for (const gateway of cluster.gateways) expect(await gateway.accepts(secret)).toBe(false);
      expect(effect.receipt!.verifiers.map(({ by }) => by)).toEqual(['ack', 'ack', 'ack']);
      expect(effect.receipt!.verifiers.map(({ id }) => id).sort()).toEqual(
        cluster.gateways.map((g) => g.verifier.id).sort(),
      );
    }
  });

  it('with Redis permanently unavailable a revocation is confirmed by the leases, and every gateway rejects the token', async () => {
    const replica = await cluster.replica(LEASE_MS);
    for (let i = 0; i < 2; i++) await cluster.gateway();
    const { secret, id } = await cluster.token();
    await cluster.redis.kill();
    try {
      const effect = await replica.confirmations.confirm([await cluster.commit(replica, id)]);
      for (const gateway of cluster.gateways) expect(await gateway.accepts(secret)).toBe(false);
      expect(effect.effective).toBe(true);
      for (const { by } of effect.receipt!.verifiers) expect(['cursor', 'lease']).toContain(by);
    } finally {
      await cluster.redis.restart();
    }
  });

  it('a gateway cut off from everything rejects a revoked token from the expiry of its lease', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const [near, far] = [await cluster.gateway(), await cluster.gateway()];
    const { secret, id } = await cluster.token();
    far.kill();
    // A renewal committed after the confirmation has read the row would extend the lease.
    await waitFor(() => far.renewing === 0);
    const effect = await replica.confirmations.confirm([await cluster.commit(replica, id)]);
    expect(effect.effective).toBe(true);
    expect(await near.accepts(secret)).toBe(false);
    expect(await far.verifier.verify(secret, { scopes: [] })).toMatchObject({ reason: 'unavailable' });
    expect(effect.receipt!.verifiers.find((v) => v.id === far.verifier.id)).toMatchObject({ by: 'lease' });
    // The lapsed lease is reaped: the next confirmation does not wait for it.
    await waitFor(async () => (await cluster.database.query('SELECT 1 FROM leases')).length === 1);
  });

  it('a revocation whose service died between commit and publishing is received by renewal, and confirmed by a repeat', async () => {
    const [killed, other] = [await cluster.replica(LEASE_MS), await cluster.replica(LEASE_MS)];
    const gateway = await cluster.gateway();
    const { secret, id } = await cluster.token();
    const invalidation = await cluster.commit(killed, id);
    await waitFor(async () => !(await gateway.accepts(secret)), { timeoutMs: LEASE_MS });
    const effect = await other.confirmations.confirm([invalidation]);
    expect(effect).toMatchObject({ effective: true, receipt: { verifiers: [{ id: gateway.verifier.id }] } });
  });

  it('a revocation is effective at once when there are no leases', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const invalidation = await replica.invalidate('everything');
    expect(await replica.confirmations.confirm([invalidation])).toMatchObject({
      effective: true,
      receipt: { verifiers: [] },
    });
  });

  it('a confirmation does not wait for a gateway that was stopped in order', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const [staying, leaving] = [await cluster.gateway(), await cluster.gateway()];
    const { id } = await cluster.token();
    leaving.feed.close();
    const invalidation = await cluster.commit(replica, id);
    const confirming = replica.confirmations.confirm([invalidation]);
    await leaving.verifier.stop();
    const { receipt } = await confirming;
    expect(receipt!.verifiers.find((v) => v.id === staying.verifier.id)).toMatchObject({ by: 'ack' });
    expect(receipt!.verifiers.find((v) => v.id === leaving.verifier.id)).toMatchObject({ by: 'released' });
  });

  it('a confirmation acknowledged by all waits until a stalled PostgreSQL has proven that it still has the change', async () => {
    await using link = await faultyLink(cluster.database.url);
    const [stalled, other] = [
      await cluster.replica(LEASE_MS, [SIGNING_SECRET], link.url(cluster.database.url)),
      await cluster.replica(LEASE_MS),
    ];
    cluster.replicas.splice(0, 1); // the gateway uses the other
    const gateway = await cluster.gateway();
    const { id } = await cluster.token();
    const invalidation = await cluster.commit(stalled, id);
    gateway.isMute = true;
    const confirming = stalled.confirmations.confirm([invalidation]);
    await waitFor(() => stalled.confirmations.pending === 1);
    link.stall();
    await sleep(1_200); // longer than a proof of the database's history is valid
    gateway.isMute = false;
    other.confirmations.confirm([invalidation]).catch(() => undefined); // publishes it again
    await waitFor(() => stalled.confirmations.by.first_party.ack === 1);
    expect(await Promise.race([confirming, sleep(300, 'waits')])).toBe('waits');
    link.heal();
    expect(await confirming).toMatchObject({ effective: true, receipt: { verifiers: [{ by: 'ack' }] } });
    await stalled.close();
  });

  it('an invalidation reaches gateways whose subscription was cut, because it is published again', async () => {
    const replica = await cluster.replica(10_000);
    const gateway = await cluster.gateway();
    const { id } = await cluster.token();
    const admin = new Redis(cluster.redis.url);
    for (let i = 0; i < 3; i++) await admin.call('CLIENT', 'KILL', 'TYPE', 'PUBSUB');
    const { receipt } = await replica.confirmations.confirm([await cluster.commit(replica, id)]);
    admin.disconnect();
    expect(receipt!.verifiers).toMatchObject([{ id: gateway.verifier.id, by: 'ack' }]);
  });
});

describe('a caller that does not wait', () => {
  it('a caller that does not wait gets the pending verifiers at once, and the receipt follows', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const gateway = await cluster.gateway('slow one');
    const { id } = await cluster.token();
    gateway.kill();
    const receipts: unknown[] = [];
    const onEffective = async (receipt: unknown) => void receipts.push(receipt);
    const invalidation = await cluster.commit(replica, id);
    const effect = await replica.confirmations.confirm([invalidation], { waitMs: 0, onEffective });
    expect(effect).toMatchObject({
      effective: false,
      receipt: null,
      pending: [{ id: gateway.verifier.id, name: 'slow one' }],
    });
    expect(effect.pending[0]!.leaseEndsInMs).toBeLessThanOrEqual(lapsedAfterMs(LEASE_MS));
    await waitFor(() => receipts.length === 1, { timeoutMs: 5_000 });
    expect(receipts).toMatchObject([{ verifiers: [{ id: gateway.verifier.id, by: 'lease' }] }]);
  });

  it('a waiting caller gets the pending verifiers when the service stops', async () => {
    const replica = await cluster.replica(10_000);
    const gateway = await cluster.gateway();
    const { id } = await cluster.token();
    gateway.kill();
    const confirming = replica.confirmations.confirm([await cluster.commit(replica, id)]);
    await waitFor(() => replica.confirmations.pending === 1);
    await sleep(50);
    replica.confirmations.stop();
    expect(await confirming).toMatchObject({ effective: false, pending: [{ id: gateway.verifier.id }] });
    await cluster.database.query('DELETE FROM leases');
  });
});

describe('an unreliable Redis', () => {
  it('forged, foreign and repeated acknowledgements over Redis confirm nothing', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const [mute, other] = [await cluster.gateway(), await cluster.gateway()];
    const { secret, id } = await cluster.token();
    mute.feed.close();
    mute.authorityUnavailable = true;
    const invalidation = await cluster.commit(replica, id);
    const digest = digestOf((await replica.log.leases()).log, invalidation);
    const confirming = replica.confirmations.confirm([invalidation]);
    await waitFor(() => replica.confirmations.pending === 1);
    const attacker = new Redis(cluster.redis.url);
    const publish = (event: unknown) => attacker.publish('latchkey:v1:acknowledgements', JSON.stringify(event));
    for (let i = 0; i < 20; i++) {
      await publish(signAcknowledgement(Buffer.from('a guess'), mute.verifier.id!, [digest]));
      await publish({ verifier: mute.verifier.id, digests: [digest], mac: '' });
      await attacker.publish('latchkey:v1:acknowledgements', 'not json');
    }
    attacker.disconnect();
    const { receipt } = await confirming;
    expect(await mute.accepts(secret)).toBe(false);
    expect(receipt!.verifiers.find((v) => v.id === mute.verifier.id)).toMatchObject({ by: 'lease' });
    expect(receipt!.verifiers.find((v) => v.id === other.verifier.id)).toMatchObject({ by: 'ack' });
    expect(receipt!.verifiers).toHaveLength(2);
    expect(replica.confirmations.acknowledgementsDropped).toMatchObject({ malformed: 40, not_authentic: 20 });
  });

  it('an emptied Redis does not affect a confirmation', async () => {
    const replica = await cluster.replica(LEASE_MS);
    await cluster.gateway();
    const { secret, id } = await cluster.token();
    const admin = new Redis(cluster.redis.url);
    await admin.flushall();
    admin.disconnect();
    expect(await replica.confirmations.confirm([await cluster.commit(replica, id)])).toMatchObject({ effective: true });
    expect(await cluster.gateways[0]!.accepts(secret)).toBe(false);
  });
});

describe('transactions out of order', () => {
  it('an invalidation that commits after later ones were read is still read by renewals', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const gateway = await cluster.gateway();
    gateway.feed.close();
    const { secret, id } = await cluster.token();
    const slow = new Client({ connectionString: cluster.database.url });
    await slow.connect();
    await slow.query('BEGIN');
    await slow.query(
      `INSERT INTO invalidations (id, kind, subject, cut, created_at) VALUES ($1, 'token', $2, true, now())`,
      [newId(), id],
    );
    await slow.query(`UPDATE test_tokens SET denial = 'revoked' WHERE id = $1`, [id]);
    for (let i = 0; i < 10; i++) await replica.invalidate('owner', newId());
    const { renewals } = gateway.verifier.counters;
    await waitFor(() => gateway.verifier.counters.renewals >= renewals + 3);
    // Transactions of other databases in the cluster hold the cursor back too: earlier invalidations can be read again.
    const applied = gateway.verifier.counters.invalidationsApplied;
    expect(applied).toBeGreaterThanOrEqual(10);
    expect(gateway.verifier.counters.invalidationsRepeated).toBeGreaterThanOrEqual(10);
    expect(await gateway.accepts(secret)).toBe(true);
    await slow.query('COMMIT');
    await slow.end();
    await waitFor(async () => !(await gateway.accepts(secret)), { timeoutMs: LEASE_MS });
    expect(gateway.verifier.counters).toMatchObject({ invalidationsApplied: applied + 1, resets: 1 });
  });
});

describe('LEASE_MS changed in a rolling restart', () => {
  it('after LEASE_MS changed, a confirmation waits for the longest lease that a verifier can still have', async () => {
    const long = await cluster.replica(2_000);
    const gateway = await cluster.gateway();
    const { secret, id } = await cluster.token();
    const short = await cluster.replica(500);
    const request = { verifierId: '', name: 'gateway', cursor: null, claim: gateway.claim, version: '' };
    await short.leases.renew(request, FIRST_PARTY);
    gateway.kill(); // it never received the shorter lease
    const { receipt } = await short.confirmations.confirm([await cluster.commit(long, id)]);
    expect(await gateway.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toMatchObject([{ by: 'lease' }]);
    expect(receipt!.verifiers[0]!.ms).toBeGreaterThanOrEqual(2_400);
  });
});
