import type { RenewResponse } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { LeaseRefused } from '../../src/invalidation/leases.js';
import { Cluster, FIRST_PARTY, newClaim, type Replica, thirdParty } from './harness.js';

let cluster: Cluster;
let replica: Replica;
beforeAll(async () => {
  cluster = await Cluster.open();
});
beforeEach(async () => {
  replica = await cluster.replica(500);
});
afterEach(() => cluster.reset());
afterAll(() => cluster.close());

const stranger = thirdParty();
const request = (over = {}) => ({
  verifierId: '',
  name: 'test',
  cursor: null,
  claim: newClaim(),
  version: 'test',
  ...over,
});
/** As a verifier of version 0.1 sends it: with an id of its own. */
const oldRequest = (over = {}) => request({ verifierId: newId(), claim: '', version: '', ...over });
/** What a verifier sends after this response. */
const requestAfter = ({ nonce, cursor }: RenewResponse) => ({ nonce, cursor });
const rejection = (reason: string) => expect.objectContaining({ name: 'LeaseRefused', reason });

describe('a lease', () => {
  it('a lease begins with a reset and continues from its cursor', async () => {
    const verifier = request();
    const first = await replica.leases.renew(verifier, FIRST_PARTY);
    expect(first).toMatchObject({ leaseMs: 500, reset: true, invalidations: [] });
    const { id } = await replica.invalidate('owner', newId());
    const second = await replica.leases.renew({ ...verifier, cursor: first.cursor }, FIRST_PARTY);
    expect(second).toMatchObject({ reset: false, invalidations: [{ id, kind: 'owner', cut: false }] });
    // Any open transaction on this server holds the cursor back: then the invalidation is returned again.
    let { cursor } = second;
    await waitFor(async () => {
      const next = await replica.leases.renew({ ...verifier, cursor }, FIRST_PARTY);
      expect(next.reset).toBe(false);
      cursor = next.cursor;
      return next.invalidations.length === 0;
    });
  });

  it('the same caller and claim get the same lease at every replica: id, key and row', async () => {
    const other = await cluster.replica(500);
    const verifier = request();
    const responses = await Promise.all(
      [replica, other, replica, other].map((one) => one.leases.renew(verifier, FIRST_PARTY)),
    );
    responses.push(await replica.leases.renew(verifier, FIRST_PARTY));
    const same = ({ verifierId, ackKey, usageKey }: (typeof responses)[number]) => ({ verifierId, ackKey, usageKey });
    for (const response of responses) expect(same(response)).toEqual(same(responses[0]!));
    expect(await cluster.database.query('SELECT verifier_id FROM leases')).toEqual([
      { verifier_id: responses[0]!.verifierId },
    ]);
  });

  it('concurrent first renewals of one claim get one lease, and none is refused', async () => {
    for (let round = 0; round < 30; round++) {
      const verifier = request();
      const responses = await Promise.all(Array.from({ length: 8 }, () => replica.leases.renew(verifier, FIRST_PARTY)));
      expect(new Set(responses.map(({ verifierId }) => verifierId)).size).toBe(1);
    }
  });

  it('another caller or another claim gets another lease: no verifier gets the id of another', async () => {
    const verifier = request();
    const mine = await replica.leases.renew(verifier, FIRST_PARTY);
    const theirs = await replica.leases.renew(verifier, stranger);
    const again = await replica.leases.renew(request(), FIRST_PARTY);
    expect(new Set([mine, theirs, again].map((response) => response.verifierId)).size).toBe(3);
    expect(new Set([mine, theirs, again].map((response) => Buffer.from(response.ackKey).toString('hex'))).size).toBe(3);
    const own = { verifierId: mine.verifierId, claim: verifier.claim };
    expect(await replica.leases.release(own, stranger.id)).toBe(false);
    expect(await replica.leases.release(own, FIRST_PARTY.id)).toBe(true);
    expect(await replica.leases.release(own, FIRST_PARTY.id)).toBe(false);
  });

  it('after its row was reaped a claim gets a new lease, with a new id and a new key', async () => {
    const verifier = request();
    const before = await replica.leases.renew(verifier, FIRST_PARTY);
    await waitFor(async () => (await replica.leases.reap()) > 0, { timeoutMs: 5_000 });
    const after = await replica.leases.renew({ ...verifier, cursor: before.cursor }, FIRST_PARTY);
    expect(after.verifierId).not.toBe(before.verifierId);
    expect(after.ackKey).not.toEqual(before.ackKey);
  });

  it('a lease continues from its cursor after any number of renewals whose responses were lost', async () => {
    const long = await cluster.replica(10_000);
    const verifier = request();
    const { nonce, cursor } = await long.leases.renew(verifier, FIRST_PARTY);
    let last = '';
    for (let lost = 0; lost < 100; lost++) {
      const response = await long.leases.renew({ ...verifier, nonce, cursor }, FIRST_PARTY);
      expect(response).toMatchObject({ reset: false, cursor: { log: cursor!.log } });
      last = response.nonce;
    }
    const next = await long.leases.renew({ ...verifier, nonce: last, cursor }, FIRST_PARTY);
    expect(next).toMatchObject({ reset: false, cursor: { log: cursor!.log } });
    await cluster.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0');
  });

  it('old renewals that arrive late, however many, get a reset and do not disturb the lease or the log', async () => {
    const long = await cluster.replica(10_000);
    const verifier = request();
    const given = [await long.leases.renew(verifier, FIRST_PARTY)];
    for (let i = 0; i < 12; i++)
      given.push(await long.leases.renew({ ...verifier, ...requestAfter(given.at(-1)!) }, FIRST_PARTY));
    const { log } = given[0]!.cursor!;
    const [current, ...before] = given.reverse();
    for (let round = 0; round < 6; round++) {
      for (const old of before.slice(1)) {
        const late = await long.leases.renew({ ...verifier, ...requestAfter(old) }, FIRST_PARTY);
        expect(late).toMatchObject({ reset: true, cursor: { log } });
      }
    }
    const next = await long.leases.renew({ ...verifier, ...requestAfter(current!) }, FIRST_PARTY);
    expect(next).toMatchObject({ reset: false, cursor: { log } });
    await cluster.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0');
  });

  describe('a renewal with a nonce that the database no longer has', () => {
    const currentLog = async () =>
      (await cluster.database.query('SELECT log FROM invalidation_log'))[0]!['log'] as string;
    /** As after a start of PostgreSQL with a restored folder: it lacks the nonces given last. */
    const restoreFolder = () =>
      cluster.database.query(`UPDATE leases SET nonces = ARRAY['00000001-0000-4000-8000-000000000000'::uuid];
        UPDATE invalidation_log SET begun_in = NULL`);

    afterEach(() => cluster.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0'));

    it('a renewal with a nonce that the database lacks begins a new log, once for all such verifiers', async () => {
      const long = await cluster.replica(10_000);
      const all = [1, 2, 3].map(() => request());
      const given = await Promise.all(all.map((verifier) => long.leases.renew(verifier, FIRST_PARTY)));
      const before = await currentLog();
      await restoreFolder();
      const renewed = [];
      for (const [i, verifier] of all.entries())
        renewed.push(await long.leases.renew({ ...verifier, ...requestAfter(given[i]!) }, FIRST_PARTY));
      const log = await currentLog();
      expect(log).not.toBe(before);
      for (const [i, verifier] of all.entries()) {
        expect(renewed[i]).toMatchObject({ reset: true, cursor: { log } });
        const next = await long.leases.renew({ ...verifier, ...requestAfter(renewed[i]!) }, FIRST_PARTY);
        expect(next).toMatchObject({ reset: false, cursor: { log } });
      }
    });

    it('a renewal with a nonce that the database lacks begins the new log later when that failed', async () => {
      const long = await cluster.replica(10_000);
      const verifier = request();
      const given = await long.leases.renew(verifier, FIRST_PARTY);
      const before = await currentLog();
      await restoreFolder();
      await cluster.database.query('REVOKE EXECUTE ON FUNCTION log_follow FROM PUBLIC');
      await expect(long.leases.renew({ ...verifier, ...requestAfter(given) }, FIRST_PARTY)).rejects.toThrow(
        'permission denied for function log_follow',
      );
      await cluster.database.query('GRANT EXECUTE ON FUNCTION log_follow TO PUBLIC');
      expect(await currentLog()).toBe(before);
      const renewed = await long.leases.renew({ ...verifier, ...requestAfter(given) }, FIRST_PARTY);
      expect(renewed).toMatchObject({ reset: true, cursor: { log: await currentLog() } });
      expect(await currentLog()).not.toBe(before);
    });
  });

  it('a lease is released only with its claim: a caller with the same credential and the id cannot end a wait for it', async () => {
    const verifier = request();
    const { verifierId } = await replica.leases.renew(verifier, FIRST_PARTY);
    const old = oldRequest();
    await replica.leases.renew(old, FIRST_PARTY);
    for (const claim of ['', newClaim(), 'x'])
      for (const id of [verifierId, old.verifierId])
        expect(await replica.leases.release({ verifierId: id, claim }, FIRST_PARTY.id)).toBe(false);
    const { receipt } = await replica.confirmations.confirm([await replica.invalidate('owner', newId())]);
    expect(receipt!.verifiers.map(({ id, by }) => ({ id, by }))).toEqual(
      expect.arrayContaining([verifierId, old.verifierId].map((id) => ({ id, by: 'lease' }))),
    );
  });

  it('a released or ended lease is not renewed: the verifier needs another claim', async () => {
    const [released, ended] = [request(), request()];
    const { verifierId: releasedId } = await replica.leases.renew(released, FIRST_PARTY);
    await replica.leases.release({ verifierId: releasedId, claim: released.claim }, FIRST_PARTY.id);
    const { verifierId } = await replica.leases.renew(ended, FIRST_PARTY);
    await cluster.database.query('UPDATE leases SET ended_at = now() WHERE verifier_id = $1', [verifierId]);
    for (const one of [released, ended])
      await expect(replica.leases.renew(one, FIRST_PARTY)).rejects.toEqual(rejection('ended'));
    expect(replica.leases.refused.first_party.ended).toBe(2);
    expect((await replica.leases.renew(request(), FIRST_PARTY)).reset).toBe(true);
  });

  it('one owner gets at most 64 leases, however many tokens and concurrent renewals; first-party services have no such limit', async () => {
    const owner = newId();
    const callers = Array.from({ length: 4 }, () => thirdParty(owner));
    const outcomes = await Promise.allSettled(
      Array.from({ length: 80 }, (_, i) => replica.leases.renew(request(), callers[i % callers.length]!)),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(64);
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    expect(refused).toEqual(refused.map(() => rejection('too_many')));
    expect(refused[0].message).toMatch(/^too_many: /);
    await replica.leases.renew(request(), thirdParty());
    await Promise.all(Array.from({ length: 70 }, () => replica.leases.renew(request(), FIRST_PARTY)));
    expect(await cluster.database.query('SELECT count(*)::int AS n FROM leases')).toEqual([{ n: 64 + 1 + 70 }]);
  });

  it.each([
    ['a claim too short', 'claim', { claim: 'x'.repeat(31) }],
    ['a claim too long', 'claim', { claim: 'x'.repeat(65) }],
    ['a claim of other characters', 'claim', { claim: `${'x'.repeat(32)}'` }],
    ['no claim and no id', 'claim', { claim: '' }],
    ['no claim and an invalid id', 'claim', { claim: '', verifierId: 'x' }],
    ['a claim and an id of its own', 'verifierId', { verifierId: newId() }],
    ['a name too long', 'name', { name: 'x'.repeat(101) }],
    ['a name of control characters', 'name', { name: 'a\nb' }],
    ['a name with half a surrogate pair', 'name', { name: 'a\ud800' }],
    ['a version too long', 'version', { version: 'x'.repeat(51) }],
    ['a version of control characters', 'version', { version: '\u0000' }],
    ['a cursor of an invalid log', 'cursor.log', { cursor: { log: 'x', xid: '1' } }],
    ['a cursor that is not a number', 'cursor.xid', { cursor: { log: newId(), xid: '1; DROP' } }],
    ['a cursor beyond all transactions', 'cursor.xid', { cursor: { log: newId(), xid: '99999999999999999999' } }],
  ])('a renewal with %s is refused by name', async (_, field, over) => {
    const refused: unknown = await replica.leases.renew(request(over), FIRST_PARTY).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(LeaseRefused);
    expect(refused).toMatchObject({ reason: 'invalid', message: expect.stringContaining(field) });
    expect(await cluster.database.query('SELECT 1 FROM leases')).toEqual([]);
  });

  it.each([
    ['of another log', () => ({ log: newId(), xid: '1000000' })],
    ['older than the log', (log: string) => ({ log, xid: '0' })],
    ['beyond the snapshot', (log: string) => ({ log, xid: '9000000000000000000' })],
  ])('a renewal with a cursor %s gets a reset', async (_, cursorOf) => {
    const { cursor } = await replica.leases.renew(request(), FIRST_PARTY);
    const response = await replica.leases.renew(request({ cursor: cursorOf(cursor!.log) }), FIRST_PARTY);
    expect(response).toMatchObject({ reset: true, invalidations: [] });
  });
});

describe('a verifier of version 0.1', () => {
  it('a verifier of version 0.1 renews with its own id, which no one else can use, and gets keys that sign nothing', async () => {
    const verifier = oldRequest();
    const [first, second] = [
      await replica.leases.renew(verifier, FIRST_PARTY),
      await replica.leases.renew(verifier, FIRST_PARTY),
    ];
    expect(first.verifierId).toBe(verifier.verifierId);
    expect(first.feedKey).toHaveLength(32);
    expect(second.feedKey).not.toEqual(first.feedKey);
    await expect(replica.leases.renew(verifier, stranger)).rejects.toEqual(rejection('foreign'));
    expect(await cluster.database.query('SELECT 1 FROM leases')).toHaveLength(1);
  });

  it('a verifier of version 0.1 gets invalidations by renewing, and is confirmed by its cursor', async () => {
    // A lease longer than any transaction that holds the cursor back.
    const long = await cluster.replica(10_000);
    const verifier = oldRequest();
    let { cursor } = await long.leases.renew(verifier, FIRST_PARTY);
    const renewing = setInterval(() => {
      void long.leases.renew({ ...verifier, cursor }, FIRST_PARTY).then((response) => {
        cursor = response.cursor;
      });
    }, 100);
    const { receipt } = await long.confirmations.confirm([await long.invalidate('owner', newId())]);
    clearInterval(renewing);
    expect(receipt!.verifiers).toMatchObject([{ id: verifier.verifierId, by: 'cursor' }]);
    await cluster.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0');
  });

  it('a verifier of version 0.1 cannot take over the lease of a claim by its id', async () => {
    const { verifierId } = await replica.leases.renew(request(), FIRST_PARTY);
    for (const caller of [FIRST_PARTY, stranger])
      await expect(replica.leases.renew(oldRequest({ verifierId }), caller)).rejects.toThrow(LeaseRefused);
  });
});

describe('reaping leases', () => {
  it('a lease is reaped only after its last renewal was observed for a lease and the drift', async () => {
    const verifier = request();
    await replica.leases.renew(verifier, FIRST_PARTY);
    const untilMs = Date.now() + 1_500;
    while (Date.now() < untilMs) {
      expect(await replica.leases.reap()).toBe(0);
      await replica.leases.renew(verifier, FIRST_PARTY);
      await new Promise((r) => setTimeout(r, 50));
    }
    expect(await replica.leases.reap()).toBe(0);
    await new Promise((r) => setTimeout(r, 620));
    expect(await replica.leases.reap()).toBe(1);
    expect(await cluster.database.query('SELECT 1 FROM leases')).toEqual([]);
  });

  it('a lease renewed since it was read is not reaped', async () => {
    const verifier = request();
    await replica.leases.renew(verifier, FIRST_PARTY);
    const { leases } = await replica.log.leases();
    const { verifierId } = await replica.leases.renew(verifier, FIRST_PARTY);
    expect(await replica.store.onOneConnection((here) => here.deleteLease(verifierId, leases[0]!.renewal))).toBe(false);
  });
});

describe('the log', () => {
  it('pruning the log removes old invalidations, and verifiers that needed them get a reset', async () => {
    await cluster.database.query('DELETE FROM invalidations');
    const behind = request();
    const { cursor } = await replica.leases.renew(behind, FIRST_PARTY);
    for (let i = 0; i < 5; i++) await replica.invalidate('owner', newId());
    const old = request();
    const newest = (await cluster.database.query('SELECT max(xid)::text AS xid FROM invalidations'))[0]!['xid'];
    const current = await waitFor(async () => {
      const response = await replica.leases.renew(old, FIRST_PARTY);
      return BigInt(response.cursor!.xid) > BigInt(newest) ? response : null;
    });
    await cluster.database.query(`UPDATE invalidations SET created_at = now() - interval '2 hours'`);
    const { id } = await replica.invalidate('owner', newId());
    expect(await replica.store.pruneLog(3_600_000, 3)).toBe(3);
    expect(await replica.store.pruneLog(3_600_000, 1_000)).toBe(2);
    expect(await replica.store.pruneLog(3_600_000, 1_000)).toBe(0);
    expect(await replica.leases.renew({ ...behind, cursor }, FIRST_PARTY)).toMatchObject({ reset: true });
    const next = await replica.leases.renew({ ...old, cursor: current.cursor }, FIRST_PARTY);
    expect(next).toMatchObject({ reset: false, invalidations: [{ id }] });
  });

  it('after a restore the log is a new one: verifiers reset, and confirmations wait for leases that the backup lacked', async () => {
    const gateway = await cluster.gateway();
    const { cursor } = await replica.leases.renew(request(), FIRST_PARTY);
    const { secret, id } = await cluster.token();
    // As after a restore into another server, another timeline or a rewritten table:
    gateway.kill();
    await cluster.database.query('DELETE FROM leases');
    await cluster.database.query(`UPDATE invalidation_log SET incarnation = 'another'`);
    const second = await cluster.replica(500);
    const committed = await cluster.commit(second, id);
    const receipt = await waitFor(async () => (await second.confirmations.confirm([committed])).receipt);
    expect(await gateway.accepts(secret)).toBe(false);
    // With the gateway too, if a renewal of it came after the deletion.
    const unowned = { name: 'whoever was there before the restore', by: 'lease' };
    expect(receipt.verifiers).toContainEqual(expect.objectContaining(unowned));
    for (const { by } of receipt.verifiers) expect(by).toBe('lease');
    const response = await replica.leases.renew(request({ cursor }), FIRST_PARTY);
    expect(response).toMatchObject({ reset: true });
    expect(response.cursor!.log).not.toBe(cursor!.log);
  });

  it('a log begun by several replicas at once is one log', async () => {
    await cluster.database.query(`UPDATE invalidation_log SET incarnation = ''`);
    const replicas = await Promise.all(Array.from({ length: 4 }, () => cluster.replica(500)));
    const responses = await Promise.all(replicas.map(({ log }) => log.leases()));
    expect(new Set(responses.map(({ log }) => log)).size).toBe(1);
    expect(await cluster.database.query('SELECT 1 FROM leases')).toEqual([]);
  });
});
