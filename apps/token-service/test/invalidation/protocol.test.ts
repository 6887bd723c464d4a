import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf, signAcknowledgement } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { faultyLink, waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { Client } from 'pg';
import { lapsedAfterMs } from '../../src/invalidation/types.js';
import { FIRST_PARTY, Room, SIGNING_SECRET } from './harness.js';

let room: Room;
beforeAll(async () => {
  room = await Room.open();
});
afterEach(() => room.closeParts());
afterAll(() => room.close());

const LEASE_MS = 1_000;

describe('a revocation that has returned', () => {
  it('is refused by every gateway, by their acknowledgements, whichever replica they talk to', async () => {
    const [first, second] = [await room.replica(LEASE_MS), await room.replica(LEASE_MS)];
    for (let i = 0; i < 3; i++) await room.gateway();
    for (const replica of [first, second, first, second]) {
      const { secret, id } = await room.token();
      const effect = await replica.confirmations.confirm([await room.commit(replica, id)]);
      expect(effect.effective).toBe(true);
      for (const gateway of room.gateways) expect(await gateway.accepts(secret)).toBe(false);
      expect(effect.receipt!.verifiers.map(({ by }) => by)).toEqual(['ack', 'ack', 'ack']);
      expect(effect.receipt!.verifiers.map(({ id }) => id).sort()).toEqual(
        room.gateways.map((g) => g.verifier.id).sort(),
      );
    }
  });

  it('is refused with Redis away for good; it is confirmed by the leases', async () => {
    const replica = await room.replica(LEASE_MS);
    for (let i = 0; i < 2; i++) await room.gateway();
    const { secret, id } = await room.token();
    await room.redis.kill();
    try {
      const effect = await replica.confirmations.confirm([await room.commit(replica, id)]);
      for (const gateway of room.gateways) expect(await gateway.accepts(secret)).toBe(false);
      expect(effect.effective).toBe(true);
      for (const { by } of effect.receipt!.verifiers) expect(['cursor', 'lease']).toContain(by);
    } finally {
      await room.redis.restart();
    }
  });

  it('is refused by a gateway that is cut off from everything, from the end of its lease', async () => {
    const replica = await room.replica(LEASE_MS);
    const [near, far] = [await room.gateway(), await room.gateway()];
    const { secret, id } = await room.token();
    far.kill();
    // One that is committed after the confirmation has read the row would be a life after death.
    await waitFor(() => far.renewing === 0);
    const effect = await replica.confirmations.confirm([await room.commit(replica, id)]);
    expect(effect.effective).toBe(true);
    expect(await near.accepts(secret)).toBe(false);
    expect(await far.verifier.verify(secret, { scopes: [] })).toMatchObject({ reason: 'unavailable' });
    expect(effect.receipt!.verifiers.find((v) => v.id === far.verifier.id)).toMatchObject({ by: 'lease' });
    // The dead row is gone: the next one does not wait for it.
    await waitFor(async () => (await room.database.query('SELECT 1 FROM leases')).length === 1);
  });

  it('is learnt by renewal when the service died between commit and publishing, and a repeat confirms it', async () => {
    const [dying, other] = [await room.replica(LEASE_MS), await room.replica(LEASE_MS)];
    const gateway = await room.gateway();
    const { secret, id } = await room.token();
    const invalidation = await room.commit(dying, id);
    await waitFor(async () => !(await gateway.accepts(secret)), { timeoutMs: LEASE_MS });
    const effect = await other.confirmations.confirm([invalidation]);
    expect(effect).toMatchObject({ effective: true, receipt: { verifiers: [{ id: gateway.verifier.id }] } });
  });

  it('needs nobody when nobody holds a lease', async () => {
    const replica = await room.replica(LEASE_MS);
    const invalidation = await replica.invalidate('everything');
    expect(await replica.confirmations.confirm([invalidation])).toMatchObject({
      effective: true,
      receipt: { verifiers: [] },
    });
  });

  it('does not wait for a gateway that has stopped in order', async () => {
    const replica = await room.replica(LEASE_MS);
    const [staying, leaving] = [await room.gateway(), await room.gateway()];
    const { id } = await room.token();
    leaving.feed.close();
    const invalidation = await room.commit(replica, id);
    const confirming = replica.confirmations.confirm([invalidation]);
    await leaving.verifier.stop();
    const { receipt } = await confirming;
    expect(receipt!.verifiers.find((v) => v.id === staying.verifier.id)).toMatchObject({ by: 'ack' });
    expect(receipt!.verifiers.find((v) => v.id === leaving.verifier.id)).toMatchObject({ by: 'released' });
  });

  it('waits, acknowledged by all, until PostgreSQL has shown that it still knows the change, if it was silent meanwhile', async () => {
    await using link = await faultyLink(room.database.url);
    const [asked, judging] = [
      await room.replica(LEASE_MS, [SIGNING_SECRET], link.url(room.database.url)),
      await room.replica(LEASE_MS),
    ];
    room.replicas.splice(0, 1); // the gateway talks to the other
    const gateway = await room.gateway();
    const { id } = await room.token();
    const invalidation = await room.commit(asked, id);
    gateway.isMute = true;
    const confirming = asked.confirmations.confirm([invalidation]);
    await waitFor(() => asked.confirmations.pending === 1);
    link.stall();
    await sleep(1_200); // longer than what is known of the database's history counts
    gateway.isMute = false;
    judging.confirmations.confirm([invalidation]).catch(() => undefined); // says it again
    await waitFor(() => asked.confirmations.by.first_party.ack === 1);
    expect(await Promise.race([confirming, sleep(300, 'waits')])).toBe('waits');
    link.heal();
    expect(await confirming).toMatchObject({ effective: true, receipt: { verifiers: [{ by: 'ack' }] } });
    await asked.close();
  });

  it('reaches gateways whose subscription was cut, because it is said again', async () => {
    const replica = await room.replica(10_000);
    const gateway = await room.gateway();
    const { id } = await room.token();
    const admin = new Redis(room.redis.url);
    for (let i = 0; i < 3; i++) await admin.call('CLIENT', 'KILL', 'TYPE', 'PUBSUB');
    const { receipt } = await replica.confirmations.confirm([await room.commit(replica, id)]);
    admin.disconnect();
    expect(receipt!.verifiers).toMatchObject([{ id: gateway.verifier.id, by: 'ack' }]);
  });
});

describe('a caller that does not wait', () => {
  it('is told at once who is pending, and the receipt follows', async () => {
    const replica = await room.replica(LEASE_MS);
    const gateway = await room.gateway('slow one');
    const { id } = await room.token();
    gateway.kill();
    const receipts: unknown[] = [];
    const onEffective = async (receipt: unknown) => void receipts.push(receipt);
    const invalidation = await room.commit(replica, id);
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

  it('is answered when the service stops', async () => {
    const replica = await room.replica(10_000);
    const gateway = await room.gateway();
    const { id } = await room.token();
    gateway.kill();
    const confirming = replica.confirmations.confirm([await room.commit(replica, id)]);
    await waitFor(() => replica.confirmations.pending === 1);
    await sleep(50);
    replica.confirmations.stop();
    expect(await confirming).toMatchObject({ effective: false, pending: [{ id: gateway.verifier.id }] });
    await room.database.query('DELETE FROM leases');
  });
});

describe('Redis lying', () => {
  it('confirms nothing: forged, foreign and repeated acknowledgements do not count', async () => {
    const replica = await room.replica(LEASE_MS);
    const [mute, other] = [await room.gateway(), await room.gateway()];
    const { secret, id } = await room.token();
    mute.feed.close();
    mute.authorityUnavailable = true;
    const invalidation = await room.commit(replica, id);
    const digest = digestOf((await replica.log.leases()).log, invalidation);
    const confirming = replica.confirmations.confirm([invalidation]);
    await waitFor(() => replica.confirmations.pending === 1);
    const liar = new Redis(room.redis.url);
    const say = (event: unknown) => liar.publish('latchkey:v1:acknowledgements', JSON.stringify(event));
    for (let i = 0; i < 20; i++) {
      await say(signAcknowledgement(Buffer.from('a guess'), mute.verifier.id!, [digest]));
      await say({ verifier: mute.verifier.id, digests: [digest], mac: '' });
      await liar.publish('latchkey:v1:acknowledgements', 'not json');
    }
    liar.disconnect();
    const { receipt } = await confirming;
    expect(await mute.accepts(secret)).toBe(false);
    expect(receipt!.verifiers.find((v) => v.id === mute.verifier.id)).toMatchObject({ by: 'lease' });
    expect(receipt!.verifiers.find((v) => v.id === other.verifier.id)).toMatchObject({ by: 'ack' });
    expect(receipt!.verifiers).toHaveLength(2);
    expect(replica.confirmations.acknowledgementsDropped).toMatchObject({ malformed: 40, not_authentic: 20 });
  });

  it('or emptied makes no difference', async () => {
    const replica = await room.replica(LEASE_MS);
    await room.gateway();
    const { secret, id } = await room.token();
    const admin = new Redis(room.redis.url);
    await admin.flushall();
    admin.disconnect();
    expect(await replica.confirmations.confirm([await room.commit(replica, id)])).toMatchObject({ effective: true });
    expect(await room.gateways[0]!.accepts(secret)).toBe(false);
  });
});

describe('transactions out of order', () => {
  it('one that committed late, behind others that renewals have read, is read all the same', async () => {
    const replica = await room.replica(LEASE_MS);
    const gateway = await room.gateway();
    gateway.feed.close();
    const { secret, id } = await room.token();
    const slow = new Client({ connectionString: room.database.url });
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
    // Transactions of other databases in the cluster pin the cursor too: what came before this test may be read again.
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
  it('waits for the longest lease that a verifier may still run under', async () => {
    const long = await room.replica(2_000);
    const gateway = await room.gateway();
    const { secret, id } = await room.token();
    const short = await room.replica(500);
    const request = { verifierId: '', name: 'gateway', cursor: null, claim: gateway.claim, version: '' };
    await short.leases.renew(request, FIRST_PARTY);
    gateway.kill(); // it never heard of the shorter lease
    const { receipt } = await short.confirmations.confirm([await room.commit(long, id)]);
    expect(await gateway.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toMatchObject([{ by: 'lease' }]);
    expect(receipt!.verifiers[0]!.ms).toBeGreaterThanOrEqual(2_400);
  });
});
