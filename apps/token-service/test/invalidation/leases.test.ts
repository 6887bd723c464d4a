import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { LeaseRefused } from '../../src/invalidation/leases.js';
import { FIRST_PARTY, type Replica, Room } from './room.js';

let room: Room;
let replica: Replica;
beforeAll(async () => {
  room = await Room.open();
});
beforeEach(async () => {
  replica = await room.replica(500);
});
afterEach(() => room.closeParts());
afterAll(() => room.close());

const stranger = { id: 'token:1', firstParty: false };
const request = (over = {}) => ({ verifierId: newId(), name: 'test', cursor: null, ...over });
const refusal = (reason: string) => expect.objectContaining({ name: 'LeaseRefused', reason });

describe('a lease', () => {
  it('begins with a reset and goes on from its cursor', async () => {
    const verifier = request();
    const first = await replica.leases.renew(verifier, FIRST_PARTY);
    expect(first).toMatchObject({ leaseMs: 500, reset: true, invalidations: [] });
    const { id } = await replica.invalidate('owner', newId());
    const second = await replica.leases.renew({ ...verifier, cursor: first.cursor }, FIRST_PARTY);
    expect(second).toMatchObject({ reset: false, invalidations: [{ id, kind: 'owner', cut: false }] });
    // Transactions of anybody on this server hold the cursor back while they run: then it is answered again.
    let { cursor } = second;
    await waitFor(async () => {
      const next = await replica.leases.renew({ ...verifier, cursor }, FIRST_PARTY);
      expect(next.reset).toBe(false);
      cursor = next.cursor;
      return next.invalidations.length === 0;
    });
  });

  it('of another caller`s verifier is refused, and cannot be released by strangers', async () => {
    const verifier = request();
    await replica.leases.renew(verifier, FIRST_PARTY);
    await expect(replica.leases.renew(verifier, stranger)).rejects.toEqual(refusal('foreign'));
    expect(await replica.leases.release(verifier.verifierId, stranger)).toBe(false);
    expect(await replica.leases.release(verifier.verifierId, FIRST_PARTY)).toBe(true);
    expect(await replica.leases.release(verifier.verifierId, FIRST_PARTY)).toBe(false);
  });

  it('is refused beyond 64 of a caller, however many ask at once, and the first-party services have no such bound', async () => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 80 }, () => replica.leases.renew(request(), stranger)),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(64);
    const [held] = await room.database.query('SELECT verifier_id FROM leases LIMIT 1');
    await replica.leases.renew(request({ verifierId: held!['verifier_id'] }), stranger);
    await replica.leases.renew(request(), { id: 'token:2', firstParty: false });
    await Promise.all(Array.from({ length: 70 }, () => replica.leases.renew(request(), FIRST_PARTY)));
    expect(await room.database.query('SELECT count(*)::int AS n FROM leases')).toEqual([{ n: 64 + 1 + 70 }]);
  });

  it.each([
    ['an id that is none', { verifierId: 'x' }],
    ['a name too long', { name: 'x'.repeat(101) }],
    ['a name of control characters', { name: 'a\nb' }],
    ['a cursor of no log', { cursor: { log: 'x', xid: '1' } }],
    ['a cursor that is no number', { cursor: { log: newId(), xid: '1; DROP' } }],
    ['a cursor beyond all transactions', { cursor: { log: newId(), xid: '99999999999999999999' } }],
  ])('with %s is refused', async (_, over) => {
    await expect(replica.leases.renew(request(over), FIRST_PARTY)).rejects.toThrow(LeaseRefused);
    expect(await room.database.query('SELECT 1 FROM leases')).toEqual([]);
  });

  it.each([
    ['of another log', () => ({ log: newId(), xid: '1000000' })],
    ['older than the log keeps', (log: string) => ({ log, xid: '0' })],
    ['beyond the snapshot', (log: string) => ({ log, xid: '9000000000000000000' })],
  ])('with a cursor %s gets a reset', async (_, cursorOf) => {
    const { cursor } = await replica.leases.renew(request(), FIRST_PARTY);
    const answer = await replica.leases.renew(request({ cursor: cursorOf(cursor!.log) }), FIRST_PARTY);
    expect(answer).toMatchObject({ reset: true, invalidations: [] });
  });
});

describe('judging', () => {
  it('deletes a row only after watching the same renewal for a lease and the drift', async () => {
    const verifier = request();
    await replica.leases.renew(verifier, FIRST_PARTY);
    const end = Date.now() + 1_500;
    while (Date.now() < end) {
      expect(await replica.leases.judge()).toBe(0);
      await replica.leases.renew(verifier, FIRST_PARTY);
      await new Promise((r) => setTimeout(r, 50));
    }
    expect(await replica.leases.judge()).toBe(0);
    await new Promise((r) => setTimeout(r, 620));
    expect(await replica.leases.judge()).toBe(1);
    expect(await room.database.query('SELECT 1 FROM leases')).toEqual([]);
  });

  it('deletes nothing that has been renewed since it looked', async () => {
    const verifier = request();
    await replica.leases.renew(verifier, FIRST_PARTY);
    const { leases } = await replica.store.readLeases();
    await replica.leases.renew(verifier, FIRST_PARTY);
    expect(await replica.store.deleteLease(verifier.verifierId, leases[0]!.renewal)).toBe(false);
  });
});

describe('the log', () => {
  it('prunes what is old, and resets whoever would have needed it', async () => {
    await room.database.query('DELETE FROM invalidations');
    const behind = request();
    const { cursor } = await replica.leases.renew(behind, FIRST_PARTY);
    for (let i = 0; i < 5; i++) await replica.invalidate('owner', newId());
    const old = request();
    const newest = (await room.database.query('SELECT max(xid)::text AS xid FROM invalidations'))[0]!['xid'];
    const current = await waitFor(async () => {
      const answer = await replica.leases.renew(old, FIRST_PARTY);
      return BigInt(answer.cursor!.xid) > BigInt(newest) ? answer : null;
    });
    await room.database.query(`UPDATE invalidations SET created_at = now() - interval '2 hours'`);
    const { id } = await replica.invalidate('owner', newId());
    expect(await replica.store.pruneLog(3_600_000, 3)).toBe(3);
    expect(await replica.store.pruneLog(3_600_000, 1_000)).toBe(2);
    expect(await replica.store.pruneLog(3_600_000, 1_000)).toBe(0);
    expect(await replica.leases.renew({ ...behind, cursor }, FIRST_PARTY)).toMatchObject({ reset: true });
    const goesOn = await replica.leases.renew({ ...old, cursor: current.cursor }, FIRST_PARTY);
    expect(goesOn).toMatchObject({ reset: false, invalidations: [{ id }] });
  });

  it('is a new one after a restore: verifiers reset, and confirming waits for leases that the backup did not hold', async () => {
    const gateway = await room.gateway();
    const { cursor } = await replica.leases.renew(request(), FIRST_PARTY);
    const { secret, id } = await room.token();
    // What a restore into another server, another time line or a rewritten table leaves behind:
    gateway.kill();
    await room.database.query('DELETE FROM leases');
    await room.database.query(`UPDATE invalidation_log SET incarnation = 'another'`);
    const second = await room.replica(500);
    const { receipt } = await second.confirmations.confirm([await room.commit(second, id)]);
    expect(await gateway.accepts(secret)).toBe(false);
    expect(receipt!.verifiers).toMatchObject([{ name: 'whoever was there before the restore', by: 'lease' }]);
    const answer = await replica.leases.renew(request({ cursor }), FIRST_PARTY);
    expect(answer).toMatchObject({ reset: true });
    expect(answer.cursor!.log).not.toBe(cursor!.log);
  });

  it('begun by several replicas at once is one', async () => {
    await room.database.query(`UPDATE invalidation_log SET incarnation = ''`);
    const replicas = await Promise.all(Array.from({ length: 4 }, () => room.replica(500)));
    const answers = await Promise.all(replicas.map(({ log }) => log.since(null)));
    expect(new Set(answers.map(({ cursor }) => cursor.log)).size).toBe(1);
    expect(await room.database.query('SELECT 1 FROM leases')).toEqual([]);
  });
});
