import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Cluster, FIRST_PARTY, newClaim, type Replica, thirdParty } from './harness.js';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.open();
});
afterEach(() => cluster.reset());
afterAll(() => cluster.close());

const LEASE_MS = 500;
const request = (over = {}) => ({
  verifierId: '',
  name: 'theirs',
  cursor: null,
  claim: newClaim(),
  version: '',
  ...over,
});
const rejection = (reason: string) => expect.objectContaining({ name: 'LeaseRefused', reason });

/** Grants a lease that its verifier neither renews nor acknowledges; confirmations wait until it expires. */
async function delayConfirmations(replica: Replica, caller: ReturnType<typeof thirdParty>, by = 1): Promise<void> {
  const strikes = () => cluster.replicas.reduce((sum, one) => sum + one.confirmations.counters.strikes, 0);
  const before = strikes();
  // Committed before the lease is granted: each confirmation then reads the lease at once, well before it can lapse.
  const changes = await Promise.all(
    Array.from({ length: by }, async (_, i) => {
      const at = cluster.replicas[i % cluster.replicas.length]!;
      return { at, invalidation: await at.invalidate('owner', newId()) };
    }),
  );
  await replica.leases.renew(request(), caller);
  const confirming = changes.map(({ at, invalidation }) => at.confirmations.confirm([invalidation]));
  for (const { receipt } of await Promise.all(confirming))
    expect(receipt!.verifiers).toContainEqual(expect.objectContaining({ name: 'theirs', by: 'lease' }));
  await waitFor(() => strikes() > before);
}

describe('an owner whose verifiers delayed confirmations twice', () => {
  it('an owner whose verifiers delayed confirmations twice gets no lease for ten minutes, with any token; its checks are looked up one by one', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const owner = newId();
    await delayConfirmations(replica, thirdParty(owner));
    const theirs = await cluster.gateway('their verifier', thirdParty(owner));
    expect(theirs.verifier.state().leaseHeld).toBe(true);
    await delayConfirmations(replica, thirdParty(owner));
    await waitFor(() => replica.suspended.length === 1);
    expect(replica.suspended).toEqual([`user:${owner}`]);

    await expect(replica.leases.renew(request(), thirdParty(owner))).rejects.toEqual(rejection('suspended'));
    expect(replica.leases.refused.token.suspended).toBeGreaterThan(0);
    await replica.leases.renew(request(), thirdParty());
    await replica.leases.renew(request(), FIRST_PARTY);
    // The owner's well-behaved verifier loses its lease too, and looks up each check.
    await waitFor(() => !theirs.verifier.state().leaseHeld, { timeoutMs: 5_000 });
    const { secret } = await cluster.token();
    const { fills } = theirs.verifier.counters;
    for (let i = 0; i < 3; i++) expect(await theirs.accepts(secret)).toBe(true);
    expect(theirs.verifier.counters.fills).toBe(fills + 3);

    const [row] = await cluster.database.query(
      'SELECT extract(epoch FROM suspended_until - now())::float8 AS seconds FROM lease_holders WHERE holder = $1',
      [`user:${owner}`],
    );
    expect(row!['seconds']).toBeGreaterThan(590);
    expect(row!['seconds']).toBeLessThanOrEqual(600);
  });

  it('one lease counts as one delay, however many confirmations and replicas waited for it', async () => {
    const replica = await cluster.replica(LEASE_MS);
    await cluster.replica(LEASE_MS);
    const caller = thirdParty();
    await delayConfirmations(replica, caller, 12);
    await replica.leases.renew(request(), caller);
    expect(cluster.replicas.flatMap(({ suspended }) => suspended)).toEqual([]);
    expect(await cluster.database.query('SELECT 1 FROM lease_strikes')).toHaveLength(1);
  });

  it('each suspension of an owner is twice as long, a day at most, and after a day without one ten minutes again', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const holder = `user:${newId()}`;
    const minutes = async (): Promise<number> => {
      for (let i = 0; i < 2; i++) await replica.store.strike({ verifierId: newId(), renewal: '1', holder });
      const [row] = await cluster.database.query(
        'SELECT extract(epoch FROM suspended_until - now())::float8 / 60 AS minutes FROM lease_holders WHERE holder = $1',
        [holder],
      );
      return Math.round(row!['minutes']);
    };
    const each: number[] = [];
    for (let i = 0; i < 10; i++) each.push(await minutes());
    expect(each).toEqual([10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]);
    await cluster.database.query(`UPDATE lease_holders SET suspended_until = now() - interval '25 hours'`);
    expect(await minutes()).toBe(10);
  });

  it('verifiers that acknowledge, pass by cursor, or release do not delay confirmations', async () => {
    const replica = await cluster.replica(10_000);
    const theirs = await cluster.gateway('their verifier', thirdParty());
    for (let i = 0; i < 3; i++) {
      const { receipt } = await replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
      expect(receipt!.verifiers).toMatchObject([{ by: 'ack', caller: { type: 'token' } }]);
    }
    theirs.feed.close();
    const confirming = replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
    await waitFor(() => replica.confirmations.pending === 1);
    await theirs.verifier.stop();
    expect((await confirming).receipt!.verifiers).toMatchObject([{ by: 'released' }]);
    expect(await cluster.database.query('SELECT 1 FROM lease_strikes')).toEqual([]);
    expect(replica.confirmations.by.token).toEqual({ ack: 3, cursor: 0, released: 1, lease: 0 });
  });

  it('an ended lease does not count as a delay: it could not have been renewed', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const caller = thirdParty();
    for (let i = 0; i < 2; i++) {
      await replica.leases.renew(request(), caller);
      await cluster.database.query('UPDATE leases SET ended_at = now()');
      await replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
    }
    await replica.leases.renew(request(), caller);
    expect(await cluster.database.query('SELECT 1 FROM lease_strikes')).toEqual([]);
  });

  it('first-party verifiers are never suspended: a killed gateway delays no lease of others', async () => {
    const replica = await cluster.replica(LEASE_MS);
    for (let i = 0; i < 3; i++) {
      await replica.leases.renew(request(), FIRST_PARTY);
      const { receipt } = await replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
      expect(receipt!.verifiers).toMatchObject([{ by: 'lease', caller: { type: 'first_party' } }]);
    }
    await replica.leases.renew(request(), FIRST_PARTY);
    expect(await cluster.database.query('SELECT 1 FROM lease_strikes')).toEqual([]);
  });
});

describe('a caller whose new leases lapse again and again', () => {
  const lapse = async (replica: Replica, caller = FIRST_PARTY, times = 5) => {
    for (let i = 0; i < times; i++) {
      const { verifierId } = await replica.leases.renew(request(), caller);
      const [row] = await cluster.database.query('SELECT renewal::text FROM leases WHERE verifier_id = $1', [
        verifierId,
      ]);
      const lapsed = replica.store.onOneConnection((here) => here.deleteLease(verifierId, row!['renewal']));
      expect(await lapsed).toBe(true);
    }
  };

  it.each([
    ['the first-party services', () => FIRST_PARTY],
    ['a third party', () => thirdParty()],
  ])('a caller whose new leases lapse gets none until one process has run for a lease (%s)', async (_, callerOf) => {
    const replica = await cluster.replica(LEASE_MS);
    const caller = callerOf();
    await lapse(replica, caller);
    const [staying, other] = [request(), request()];
    for (const one of [staying, other])
      await expect(replica.leases.renew(one, caller)).rejects.toEqual(rejection('waiting'));
    await replica.leases.renew(request(), thirdParty());
    const grantedAfterMs = await waitFor(async () => {
      const sinceMs = performance.now();
      return replica.leases.renew(staying, caller).then(
        () => sinceMs,
        () => null,
      );
    });
    expect(grantedAfterMs).toBeGreaterThan(0);
    // One has run for a lease: the others need not wait any more.
    await replica.leases.renew(request(), caller);
  });

  it('a caller whose new leases lapse can renew its other leases, and released leases do not count', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const existing = request();
    await replica.leases.renew(existing, FIRST_PARTY);
    await lapse(replica);
    await replica.leases.renew(existing, FIRST_PARTY);
    await cluster.database.query('DELETE FROM lease_holders');
    for (let i = 0; i < 6; i++) {
      const once = request();
      const { verifierId } = await replica.leases.renew(once, FIRST_PARTY);
      await replica.leases.release({ verifierId, claim: once.claim }, FIRST_PARTY.id);
    }
    await replica.leases.renew(request(), FIRST_PARTY);
  });

  it('a gateway in a crash loop still starts: it looks up each check for as long as a lease, and then gets one', async () => {
    const replica = await cluster.replica(LEASE_MS);
    await lapse(replica);
    const gateway = await cluster.gateway('after a crash loop', FIRST_PARTY, { refusedRetryMs: 100 });
    expect(gateway.verifier.state().leaseHeld).toBe(false);
    const { secret } = await cluster.token();
    expect(await gateway.accepts(secret)).toBe(true);
    await waitFor(() => gateway.verifier.state().leaseHeld);
  });
});

describe('a lease holder whose token is revoked', () => {
  const endedRows = async () =>
    (await cluster.database.query('SELECT name FROM leases WHERE ended_at IS NOT NULL ORDER BY name')).map(
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
    ['an ancestor of the token', 'token', (one: ReturnType<typeof token>) => one.ancestors[0]!],
    ['the owner of the token', 'owner', (one: ReturnType<typeof token>) => one.ownerId],
    ['the project of the token', 'project', (one: ReturnType<typeof token>) => one.ownerId],
  ] as const)('revoking by %s ends the lease in the same transaction', async (_, kind, subjectOf) => {
    const replica = await cluster.replica(LEASE_MS);
    const one = token({ ancestors: [newId()] });
    const existing = request({ name: 'ending' });
    await replica.leases.renew(existing, callerOf(one));
    await replica.leases.renew(request({ name: 'other' }), thirdParty());
    await replica.leases.renew(request({ name: 'own' }), FIRST_PARTY);
    await replica.invalidate(kind, subjectOf(one), false);
    expect(await endedRows()).toEqual([]); // narrowed, not revoked
    await replica.invalidate(kind, subjectOf(one), true);
    expect(await endedRows()).toEqual(['ending']);
    await expect(replica.leases.renew(existing, callerOf(one))).rejects.toEqual(rejection('ended'));
  });

  it('a confirmation waits for an ended lease until it has certainly lapsed', async () => {
    const replica = await cluster.replica(1_000);
    const theirs = await cluster.gateway('theirs', thirdParty());
    const { secret, id } = await cluster.token();
    theirs.kill();
    await cluster.database.query('UPDATE leases SET ended_at = now()');
    const { receipt } = await replica.confirmations.confirm([await cluster.commit(replica, id)]);
    expect(await theirs.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toMatchObject([{ by: 'lease' }]);
    expect(receipt!.verifiers[0]!.ms).toBeGreaterThanOrEqual(1_200);
  });

  it('a verifier whose lease was ended gets another id, with an empty memory', async () => {
    await cluster.replica(1_000);
    const theirs = await cluster.gateway('theirs', thirdParty());
    const { secret } = await cluster.token();
    const { id } = theirs.verifier;
    await cluster.database.query('UPDATE leases SET ended_at = now()');
    await waitFor(() => theirs.verifier.state().leaseHeld && theirs.verifier.id !== id);
    const { fills, resets } = theirs.verifier.counters;
    expect(resets).toBe(2);
    expect(await theirs.accepts(secret)).toBe(true);
    expect(theirs.verifier.counters.fills).toBe(fills + 1);
  });
});

describe('receipts with verifiers that are gone', () => {
  it('a receipt shows a killed verifier as a lapsed lease, whichever replica reaped its row', async () => {
    const [first, second] = [await cluster.replica(1_000), await cluster.replica(1_000)];
    const gateway = await cluster.gateway();
    const { id } = await cluster.token();
    gateway.kill();
    await second.leases.reap();
    const reaping = waitFor(async () => (await second.leases.reap()) > 0, { timeoutMs: 5_000 });
    await new Promise((resolve) => setTimeout(resolve, 300)); // the other replica has observed it for longer
    const { receipt } = await first.confirmations.confirm([await cluster.commit(first, id)]);
    await reaping;
    expect(receipt!.verifiers).toMatchObject([{ by: 'lease', caller: { type: 'first_party' } }]);
  });

  it('a receipt shows a verifier as released if the wait began before the release, and later receipts omit it', async () => {
    const [first, second] = [await cluster.replica(2_000), await cluster.replica(2_000)];
    const gateway = await cluster.gateway();
    gateway.feed.close();
    const confirming = first.confirmations.confirm([await first.invalidate('owner', newId())]);
    await waitFor(() => first.confirmations.pending === 1);
    await gateway.verifier.stop();
    for (let i = 0; i < 5; i++) await second.leases.reap();
    expect((await confirming).receipt!.verifiers).toMatchObject([{ by: 'released' }]);
    const later = await second.confirmations.confirm([await second.invalidate('owner', newId())]);
    expect(later.receipt!.verifiers).toEqual([]);
  });

  it('a released lease is reaped once it would have lapsed', async () => {
    const replica = await cluster.replica(LEASE_MS);
    const once = request();
    const { verifierId } = await replica.leases.renew(once, FIRST_PARTY);
    await replica.leases.release({ verifierId, claim: once.claim }, FIRST_PARTY.id);
    await waitFor(async () => (await replica.leases.reap()) === 1, { timeoutMs: 5_000 });
    expect(await cluster.database.query('SELECT 1 FROM leases')).toEqual([]);
    expect(await cluster.database.query('SELECT 1 FROM lease_holders')).toEqual([]);
  });
});
