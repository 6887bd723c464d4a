import { REDIS, signAcknowledgement, signInvalidation } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { Room } from './room.js';

let room: Room;
beforeAll(async () => {
  room = await Room.open();
});
afterEach(() => room.closeParts());
afterAll(() => room.close());

const HOLDER = { id: 'token:holder', firstParty: false };

describe('whoever holds a lease of their own', () => {
  it('cannot make another verifier skip an invalidation', async () => {
    const replica = await room.replica(1_000);
    const gateway = await room.gateway();
    const { secret, id } = await room.token();
    const { feedKey } = await replica.leases.renew({ verifierId: newId(), name: 'holder', cursor: null }, HOLDER);
    const invalidation = await room.commit(replica, id);
    const { log } = await replica.log.leases();
    const liar = new Redis(room.redis.url);
    const forged = signInvalidation(feedKey, log, { ...invalidation, kind: 'misses', subject: '', cut: false });
    await liar.publish(REDIS.invalidations, JSON.stringify(forged));
    await waitFor(() => gateway.verifier.counters.acknowledgements + gateway.verifier.counters.messagesDropped > 0);
    const effect = await replica.confirmations.confirm([invalidation]);
    liar.disconnect();
    expect(effect.effective).toBe(true);
    expect(await gateway.accepts(secret)).toBe(false);
  });

  it('is never given the key of a verifier that was judged dead', async () => {
    const replica = await room.replica(1_000);
    const gateway = await room.gateway();
    gateway.authorityAway = true;
    const { id: verifierId } = gateway.verifier;
    await waitFor(async () => (await replica.leases.judge()) > 0, { timeoutMs: 5_000 });
    const { ackKey } = await replica.leases.renew({ verifierId, name: 'thief', cursor: null }, HOLDER);
    await replica.leases.release(verifierId, HOLDER);
    gateway.authorityAway = false;
    await waitFor(() => gateway.verifier.state().leaseHeld);
    const { secret, id } = await room.token();
    gateway.feed.close();
    gateway.authorityAway = true;
    const invalidation = await room.commit(replica, id);
    const confirming = replica.confirmations.confirm([invalidation]);
    const liar = new Redis(room.redis.url);
    await waitFor(() => replica.confirmations.pending === 1);
    await liar.publish(
      REDIS.acknowledgements,
      JSON.stringify(signAcknowledgement(ackKey, verifierId, invalidation.id)),
    );
    const { receipt } = await confirming;
    liar.disconnect();
    expect(await gateway.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toMatchObject([{ by: 'lease' }]);
  });
});

it('a verifier that was killed is told as its lapsed lease, whichever replica removed its row', async () => {
  const [first, second] = [await room.replica(1_000), await room.replica(1_000)];
  const gateway = await room.gateway();
  const { id } = await room.token();
  gateway.kill();
  await second.leases.judge();
  const judging = waitFor(async () => (await second.leases.judge()) > 0, { timeoutMs: 5_000 });
  await new Promise((r) => setTimeout(r, 300));
  const { receipt } = await first.confirmations.confirm([await room.commit(first, id)]);
  await judging;
  expect(receipt!.verifiers).toMatchObject([{ by: 'lease' }]);
});
