import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { FIRST_PARTY, newClaim, type Replica, Room, thirdParty } from './harness.js';

let room: Room;
beforeAll(async () => {
  room = await Room.open();
});
afterEach(() => room.closeParts());
afterAll(() => room.close());

const LEASE_MS = 500;
const request = (over = {}) => ({
  verifierId: '',
  name: 'theirs',
  cursor: null,
  claim: newClaim(),
  version: '',
  ...over,
});
const refusal = (reason: string) => expect.objectContaining({ name: 'LeaseRefused', reason });

/** A lease that its verifier neither renews nor acknowledges, and a confirmation that waits it out. */
async function waitedOut(replica: Replica, caller: ReturnType<typeof thirdParty>, by = 1): Promise<void> {
  const strikes = () => room.replicas.reduce((sum, one) => sum + one.confirmations.counters.strikes, 0);
  const before = strikes();
  // Committed before the lease is taken: each confirmation then reads it at once, well before it can lapse.
  const changes = await Promise.all(
    Array.from({ length: by }, async (_, i) => {
      const at = room.replicas[i % room.replicas.length]!;
      return { at, invalidation: await at.invalidate('owner', newId()) };
    }),
  );
  await replica.leases.renew(request(), caller);
  const confirming = changes.map(({ at, invalidation }) => at.confirmations.confirm([invalidation]));
  for (const { receipt } of await Promise.all(confirming))
    expect(receipt!.verifiers).toContainEqual(expect.objectContaining({ name: 'theirs', by: 'lease' }));
  await waitFor(() => strikes() > before);
}

describe('an owner whose verifiers a confirmation had to wait out twice', () => {
  it('gets no lease for ten minutes, with whatever token; others do, and its checks are answered one by one', async () => {
    const replica = await room.replica(LEASE_MS);
    const owner = newId();
    await waitedOut(replica, thirdParty(owner));
    const theirs = await room.gateway('their verifier', thirdParty(owner));
    expect(theirs.verifier.state().leaseHeld).toBe(true);
    await waitedOut(replica, thirdParty(owner));
    await waitFor(() => replica.suspended.length === 1);
    expect(replica.suspended).toEqual([`user:${owner}`]);

    await expect(replica.leases.renew(request(), thirdParty(owner))).rejects.toEqual(refusal('suspended'));
    expect(replica.leases.refused.token.suspended).toBeGreaterThan(0);
    await replica.leases.renew(request(), thirdParty());
    await replica.leases.renew(request(), FIRST_PARTY);
    // The verifier that behaved well loses its lease with the others of its owner, and asks for each check.
    await waitFor(() => !theirs.verifier.state().leaseHeld, { timeoutMs: 5_000 });
    const { secret } = await room.token();
    const { fills } = theirs.verifier.counters;
    for (let i = 0; i < 3; i++) expect(await theirs.accepts(secret)).toBe(true);
    expect(theirs.verifier.counters.fills).toBe(fills + 3);

    const [held] = await room.database.query(
      'SELECT extract(epoch FROM suspended_until - now())::float8 AS seconds FROM lease_holders WHERE holder = $1',
      [`user:${owner}`],
    );
    expect(held!['seconds']).toBeGreaterThan(590);
    expect(held!['seconds']).toBeLessThanOrEqual(600);
  });

  it('is told so once for one lease, however many confirmations and replicas waited for it', async () => {
    const replica = await room.replica(LEASE_MS);
    await room.replica(LEASE_MS);
    const caller = thirdParty();
    await waitedOut(replica, caller, 12);
    await replica.leases.renew(request(), caller);
    expect(room.replicas.flatMap(({ suspended }) => suspended)).toEqual([]);
    expect(await room.database.query('SELECT 1 FROM lease_strikes')).toHaveLength(1);
  });

  it('is kept off for twice as long each time, a day at most, and after a quiet day for ten minutes again', async () => {
    const replica = await room.replica(LEASE_MS);
    const holder = `user:${newId()}`;
    const minutes = async (): Promise<number> => {
      for (let i = 0; i < 2; i++) await replica.store.strike({ verifierId: newId(), renewal: '1', holder });
      const [row] = await room.database.query(
        'SELECT extract(epoch FROM suspended_until - now())::float8 / 60 AS minutes FROM lease_holders WHERE holder = $1',
        [holder],
      );
      return Math.round(row!['minutes']);
    };
    const each: number[] = [];
    for (let i = 0; i < 10; i++) each.push(await minutes());
    expect(each).toEqual([10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]);
    await room.database.query(`UPDATE lease_holders SET suspended_until = now() - interval '25 hours'`);
    expect(await minutes()).toBe(10);
  });

  it('is not one whose verifiers acknowledge, pass by cursor, or release', async () => {
    const replica = await room.replica(10_000);
    const theirs = await room.gateway('their verifier', thirdParty());
    for (let i = 0; i < 3; i++) {
      const { receipt } = await replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
      expect(receipt!.verifiers).toMatchObject([{ by: 'ack', caller: { type: 'token' } }]);
    }
    theirs.feed.close();
    const confirming = replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
    await waitFor(() => replica.confirmations.pending === 1);
    await theirs.verifier.stop();
    expect((await confirming).receipt!.verifiers).toMatchObject([{ by: 'released' }]);
    expect(await room.database.query('SELECT 1 FROM lease_strikes')).toEqual([]);
    expect(replica.confirmations.by.token).toEqual({ ack: 3, cursor: 0, released: 1, lease: 0 });
  });

  it('is not one whose lease was ended: it could not have renewed', async () => {
    const replica = await room.replica(LEASE_MS);
    const caller = thirdParty();
    for (let i = 0; i < 2; i++) {
      await replica.leases.renew(request(), caller);
      await room.database.query('UPDATE leases SET ended_at = now()');
      await replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
    }
    await replica.leases.renew(request(), caller);
    expect(await room.database.query('SELECT 1 FROM lease_strikes')).toEqual([]);
  });

  it('is never Latchkey`s own: a gateway that dies makes nobody else wait', async () => {
    const replica = await room.replica(LEASE_MS);
    for (let i = 0; i < 3; i++) {
      await replica.leases.renew(request(), FIRST_PARTY);
      const { receipt } = await replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
      expect(receipt!.verifiers).toMatchObject([{ by: 'lease', caller: { type: 'first_party' } }]);
    }
    await replica.leases.renew(request(), FIRST_PARTY);
    expect(await room.database.query('SELECT 1 FROM lease_strikes')).toEqual([]);
  });
});

describe('a caller whose new rows lapse again and again', () => {
  const lapse = async (replica: Replica, caller = FIRST_PARTY, times = 5) => {
    for (let i = 0; i < times; i++) {
      const { verifierId } = await replica.leases.renew(request(), caller);
      const [row] = await room.database.query('SELECT renewal::text FROM leases WHERE verifier_id = $1', [verifierId]);
      const lapsed = replica.store.onOneConnection((here) => here.deleteLease(verifierId, row!['renewal']));
      expect(await lapsed).toBe(true);
    }
  };

  it.each([
    ['the first-party services', () => FIRST_PARTY],
    ['a third party', () => thirdParty()],
  ])('gets none until one process has lived for a lease (%s)', async (_, callerOf) => {
    const replica = await room.replica(LEASE_MS);
    const caller = callerOf();
    await lapse(replica, caller);
    const [staying, dying] = [request(), request()];
    for (const one of [staying, dying])
      await expect(replica.leases.renew(one, caller)).rejects.toEqual(refusal('waiting'));
    await replica.leases.renew(request(), thirdParty());
    const grantedAfterMs = await waitFor(async () => {
      const sinceMs = performance.now();
      return replica.leases.renew(staying, caller).then(
        () => sinceMs,
        () => null,
      );
    });
    expect(grantedAfterMs).toBeGreaterThan(0);
    // One has lived: the others need not wait any more.
    await replica.leases.renew(request(), caller);
  });

  it('goes on renewing what it holds, and loses nothing by a process that ended in order', async () => {
    const replica = await room.replica(LEASE_MS);
    const held = request();
    await replica.leases.renew(held, FIRST_PARTY);
    await lapse(replica);
    await replica.leases.renew(held, FIRST_PARTY);
    await room.database.query('DELETE FROM lease_holders');
    for (let i = 0; i < 6; i++) {
      const once = request();
      const { verifierId } = await replica.leases.renew(once, FIRST_PARTY);
      await replica.leases.release({ verifierId, claim: once.claim }, FIRST_PARTY.id);
    }
    await replica.leases.renew(request(), FIRST_PARTY);
  });

  it('is a gateway that comes up all the same: it asks for each check for as long as a lease, and then has one', async () => {
    const replica = await room.replica(LEASE_MS);
    await lapse(replica);
    const gateway = await room.gateway('after a crash loop', FIRST_PARTY, { refusedRetryMs: 100 });
    expect(gateway.verifier.state().leaseHeld).toBe(false);
    const { secret } = await room.token();
    expect(await gateway.accepts(secret)).toBe(true);
    await waitFor(() => gateway.verifier.state().leaseHeld);
  });
});

describe('a holder whose token ends', () => {
  const endedRows = async () =>
    (await room.database.query('SELECT name FROM leases WHERE ended_at IS NOT NULL ORDER BY name')).map(
      (row) => row['name'],
    );
  const token = (over = {}) => ({ id: newId(), ancestors: [] as string[], ownerId: newId(), ...over });
  const callerOf = (one: ReturnType<typeof token>) => ({
    id: `token:${one.id}`,
    firstParty: false,
    holder: `user:${one.ownerId}`,
    token: one,
  });

  it.each([
    ['the token', 'token', (one: ReturnType<typeof token>) => one.id],
    ['what the token was made with', 'token', (one: ReturnType<typeof token>) => one.ancestors[0]!],
    ['its owner', 'owner', (one: ReturnType<typeof token>) => one.ownerId],
    ['its project', 'project', (one: ReturnType<typeof token>) => one.ownerId],
  ] as const)('by %s loses the right to renew in the same transaction', async (_, kind, subjectOf) => {
    const replica = await room.replica(LEASE_MS);
    const one = token({ ancestors: [newId()] });
    const held = request({ name: 'ending' });
    await replica.leases.renew(held, callerOf(one));
    await replica.leases.renew(request({ name: 'other' }), thirdParty());
    await replica.leases.renew(request({ name: 'own' }), FIRST_PARTY);
    await replica.invalidate(kind, subjectOf(one), false);
    expect(await endedRows()).toEqual([]); // narrowed, not ended
    await replica.invalidate(kind, subjectOf(one), true);
    expect(await endedRows()).toEqual(['ending']);
    await expect(replica.leases.renew(held, callerOf(one))).rejects.toEqual(refusal('ended'));
  });

  it('is waited for until its lease has certainly lapsed: an ended row is not a confirmed one', async () => {
    const replica = await room.replica(1_000);
    const theirs = await room.gateway('theirs', thirdParty());
    const { secret, id } = await room.token();
    theirs.kill();
    await room.database.query('UPDATE leases SET ended_at = now()');
    const { receipt } = await replica.confirmations.confirm([await room.commit(replica, id)]);
    expect(await theirs.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toMatchObject([{ by: 'lease' }]);
    expect(receipt!.verifiers[0]!.ms).toBeGreaterThanOrEqual(1_200);
  });

  it('that goes on all the same takes another id, with an empty memory', async () => {
    await room.replica(1_000);
    const theirs = await room.gateway('theirs', thirdParty());
    const { secret } = await room.token();
    const { id } = theirs.verifier;
    await room.database.query('UPDATE leases SET ended_at = now()');
    await waitFor(() => theirs.verifier.state().leaseHeld && theirs.verifier.id !== id);
    const { fills, resets } = theirs.verifier.counters;
    expect(resets).toBe(2);
    expect(await theirs.accepts(secret)).toBe(true);
    expect(theirs.verifier.counters.fills).toBe(fills + 1);
  });
});

describe('a receipt tells the truth about who is gone', () => {
  it('a verifier that was killed is told as its lapsed lease, whichever replica removed its row', async () => {
    const [first, second] = [await room.replica(1_000), await room.replica(1_000)];
    const gateway = await room.gateway();
    const { id } = await room.token();
    gateway.kill();
    await second.leases.judge();
    const judging = waitFor(async () => (await second.leases.judge()) > 0, { timeoutMs: 5_000 });
    await new Promise((resolve) => setTimeout(resolve, 300)); // the other replica has watched it for longer
    const { receipt } = await first.confirmations.confirm([await room.commit(first, id)]);
    await judging;
    expect(receipt!.verifiers).toMatchObject([{ by: 'lease', caller: { type: 'first_party' } }]);
  });

  it('one that released is told as released for as long as anybody can be waiting for it, and by nobody who waits later', async () => {
    const [first, second] = [await room.replica(2_000), await room.replica(2_000)];
    const gateway = await room.gateway();
    gateway.feed.close();
    const confirming = first.confirmations.confirm([await first.invalidate('owner', newId())]);
    await waitFor(() => first.confirmations.pending === 1);
    await gateway.verifier.stop();
    for (let i = 0; i < 5; i++) await second.leases.judge();
    expect((await confirming).receipt!.verifiers).toMatchObject([{ by: 'released' }]);
    const later = await second.confirmations.confirm([await second.invalidate('owner', newId())]);
    expect(later.receipt!.verifiers).toEqual([]);
  });

  it('a released row is removed once its lease would have lapsed', async () => {
    const replica = await room.replica(LEASE_MS);
    const once = request();
    const { verifierId } = await replica.leases.renew(once, FIRST_PARTY);
    await replica.leases.release({ verifierId, claim: once.claim }, FIRST_PARTY.id);
    await waitFor(async () => (await replica.leases.judge()) === 1, { timeoutMs: 5_000 });
    expect(await room.database.query('SELECT 1 FROM leases')).toEqual([]);
    expect(await room.database.query('SELECT 1 FROM lease_holders')).toEqual([]);
  });
});
