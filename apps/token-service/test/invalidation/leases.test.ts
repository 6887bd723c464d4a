import type { RenewResponse } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { LeaseRefused } from '../../src/invalidation/leases.js';
import { FIRST_PARTY, newClaim, type Replica, Room, thirdParty } from './harness.js';

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

const stranger = thirdParty();
const request = (over = {}) => ({
  verifierId: '',
  name: 'test',
  cursor: null,
  claim: newClaim(),
  version: 'test',
  ...over,
});
/** As a verifier of version 0.1 asks: under an id of its own. */
const oldRequest = (over = {}) => request({ verifierId: newId(), claim: '', version: '', ...over });
/** What a verifier sends after this response. */
const heldAfter = ({ nonce, cursor }: RenewResponse) => ({ nonce, cursor });
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

  it('is the same again for the same caller and claim, at whichever replica: id, key and row', async () => {
    const other = await room.replica(500);
    const verifier = request();
    const answers = await Promise.all(
      [replica, other, replica, other].map((one) => one.leases.renew(verifier, FIRST_PARTY)),
    );
    answers.push(await replica.leases.renew(verifier, FIRST_PARTY));
    const same = ({ verifierId, ackKey, usageKey }: (typeof answers)[number]) => ({ verifierId, ackKey, usageKey });
    for (const answer of answers) expect(same(answer)).toEqual(same(answers[0]!));
    expect(await room.database.query('SELECT verifier_id FROM leases')).toEqual([
      { verifier_id: answers[0]!.verifierId },
    ]);
  });

  it('is one row and never refused however many first renewals of one claim come at once', async () => {
    for (let round = 0; round < 30; round++) {
      const verifier = request();
      const answers = await Promise.all(Array.from({ length: 8 }, () => replica.leases.renew(verifier, FIRST_PARTY)));
      expect(new Set(answers.map(({ verifierId }) => verifierId)).size).toBe(1);
    }
  });

  it('is another for another caller or another claim: nobody is handed out the id of anybody else', async () => {
    const verifier = request();
    const mine = await replica.leases.renew(verifier, FIRST_PARTY);
    const theirs = await replica.leases.renew(verifier, stranger);
    const again = await replica.leases.renew(request(), FIRST_PARTY);
    expect(new Set([mine, theirs, again].map((answer) => answer.verifierId)).size).toBe(3);
    expect(new Set([mine, theirs, again].map((answer) => Buffer.from(answer.ackKey).toString('hex'))).size).toBe(3);
    const own = { verifierId: mine.verifierId, claim: verifier.claim };
    expect(await replica.leases.release(own, stranger.id)).toBe(false);
    expect(await replica.leases.release(own, FIRST_PARTY.id)).toBe(true);
    expect(await replica.leases.release(own, FIRST_PARTY.id)).toBe(false);
  });

  it('after the row was judged dead is a new one, with a new id and a new key for the same claim', async () => {
    const verifier = request();
    const before = await replica.leases.renew(verifier, FIRST_PARTY);
    await waitFor(async () => (await replica.leases.judge()) > 0, { timeoutMs: 5_000 });
    const after = await replica.leases.renew({ ...verifier, cursor: before.cursor }, FIRST_PARTY);
    expect(after.verifierId).not.toBe(before.verifierId);
    expect(after.ackKey).not.toEqual(before.ackKey);
  });

  it('goes on where it was after any number of renewals whose responses were lost', async () => {
    const long = await room.replica(10_000);
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
    await room.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0');
  });

  it('is not disturbed by renewals of long ago that come late, however many: they are told nothing, and the log goes on', async () => {
    const long = await room.replica(10_000);
    const verifier = request();
    const given = [await long.leases.renew(verifier, FIRST_PARTY)];
    for (let i = 0; i < 12; i++)
      given.push(await long.leases.renew({ ...verifier, ...heldAfter(given.at(-1)!) }, FIRST_PARTY));
    const { log } = given[0]!.cursor!;
    const [current, ...before] = given.reverse();
    for (let round = 0; round < 6; round++) {
      for (const old of before.slice(1)) {
        const late = await long.leases.renew({ ...verifier, ...heldAfter(old) }, FIRST_PARTY);
        expect(late).toMatchObject({ reset: true, cursor: { log } });
      }
    }
    const next = await long.leases.renew({ ...verifier, ...heldAfter(current!) }, FIRST_PARTY);
    expect(next).toMatchObject({ reset: false, cursor: { log } });
    await room.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0');
  });

  describe('that presents a nonce which history has forgotten', () => {
    const isLog = async () => (await room.database.query('SELECT log FROM invalidation_log'))[0]!['log'] as string;
    /** As if PostgreSQL had been started with a folder that was put back: it no longer has what was given last. */
    const putBack = () =>
      room.database.query(`UPDATE leases SET nonces = ARRAY['00000001-0000-4000-8000-000000000000'::uuid];
        UPDATE invalidation_log SET begun_in = NULL`);

    afterEach(() => room.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0'));

    it('begins a new log, once for all who show the same, and goes on in it', async () => {
      const long = await room.replica(10_000);
      const all = [1, 2, 3].map(() => request());
      const held = await Promise.all(all.map((verifier) => long.leases.renew(verifier, FIRST_PARTY)));
      const before = await isLog();
      await putBack();
      const told = [];
      for (const [i, verifier] of all.entries())
        told.push(await long.leases.renew({ ...verifier, ...heldAfter(held[i]!) }, FIRST_PARTY));
      const log = await isLog();
      expect(log).not.toBe(before);
      for (const [i, verifier] of all.entries()) {
        expect(told[i]).toMatchObject({ reset: true, cursor: { log } });
        const next = await long.leases.renew({ ...verifier, ...heldAfter(told[i]!) }, FIRST_PARTY);
        expect(next).toMatchObject({ reset: false, cursor: { log } });
      }
    });

    it('is told of again when the new log could not be begun', async () => {
      const long = await room.replica(10_000);
      const verifier = request();
      const held = await long.leases.renew(verifier, FIRST_PARTY);
      const before = await isLog();
      await putBack();
      await room.database.query('REVOKE EXECUTE ON FUNCTION log_follow FROM PUBLIC');
      await expect(long.leases.renew({ ...verifier, ...heldAfter(held) }, FIRST_PARTY)).rejects.toThrow(
        'permission denied for function log_follow',
      );
      await room.database.query('GRANT EXECUTE ON FUNCTION log_follow TO PUBLIC');
      expect(await isLog()).toBe(before);
      const told = await long.leases.renew({ ...verifier, ...heldAfter(held) }, FIRST_PARTY);
      expect(told).toMatchObject({ reset: true, cursor: { log: await isLog() } });
      expect(await isLog()).not.toBe(before);
    });
  });

  it('is given back only by its claim: whoever shares the credential and knows the id makes nobody stop waiting for it', async () => {
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

  it('released or ended is not renewed: the verifier needs another claim', async () => {
    const [released, ended] = [request(), request()];
    const { verifierId: releasedId } = await replica.leases.renew(released, FIRST_PARTY);
    await replica.leases.release({ verifierId: releasedId, claim: released.claim }, FIRST_PARTY.id);
    const { verifierId } = await replica.leases.renew(ended, FIRST_PARTY);
    await room.database.query('UPDATE leases SET ended_at = now() WHERE verifier_id = $1', [verifierId]);
    for (const one of [released, ended])
      await expect(replica.leases.renew(one, FIRST_PARTY)).rejects.toEqual(refusal('ended'));
    expect(replica.leases.refused.first_party.ended).toBe(2);
    expect((await replica.leases.renew(request(), FIRST_PARTY)).reset).toBe(true);
  });

  it('is refused beyond 64 of one owner, however many tokens and renewals at once; the first-party services have no such bound', async () => {
    const owner = newId();
    const callers = Array.from({ length: 4 }, () => thirdParty(owner));
    const outcomes = await Promise.allSettled(
      Array.from({ length: 80 }, (_, i) => replica.leases.renew(request(), callers[i % callers.length]!)),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(64);
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    expect(refused).toEqual(refused.map(() => refusal('too_many')));
    expect(refused[0].message).toMatch(/^too_many: /);
    await replica.leases.renew(request(), thirdParty());
    await Promise.all(Array.from({ length: 70 }, () => replica.leases.renew(request(), FIRST_PARTY)));
    expect(await room.database.query('SELECT count(*)::int AS n FROM leases')).toEqual([{ n: 64 + 1 + 70 }]);
  });

  it.each([
    ['a claim too short', 'claim', { claim: 'x'.repeat(31) }],
    ['a claim too long', 'claim', { claim: 'x'.repeat(65) }],
    ['a claim of other characters', 'claim', { claim: `${'x'.repeat(32)}'` }],
    ['no claim and no id', 'claim', { claim: '' }],
    ['no claim and an id that is none', 'claim', { claim: '', verifierId: 'x' }],
    ['a claim and an id of its own', 'verifierId', { verifierId: newId() }],
    ['a name too long', 'name', { name: 'x'.repeat(101) }],
    ['a name of control characters', 'name', { name: 'a\nb' }],
    ['a name of half a character', 'name', { name: 'a\ud800' }],
    ['a version too long', 'version', { version: 'x'.repeat(51) }],
    ['a version of control characters', 'version', { version: '\u0000' }],
    ['a cursor of no log', 'cursor.log', { cursor: { log: 'x', xid: '1' } }],
    ['a cursor that is no number', 'cursor.xid', { cursor: { log: newId(), xid: '1; DROP' } }],
    ['a cursor beyond all transactions', 'cursor.xid', { cursor: { log: newId(), xid: '99999999999999999999' } }],
  ])('with %s is refused by name', async (_, field, over) => {
    const refused: unknown = await replica.leases.renew(request(over), FIRST_PARTY).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(LeaseRefused);
    expect(refused).toMatchObject({ reason: 'invalid', message: expect.stringContaining(field) });
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

describe('a verifier of version 0.1', () => {
  it('renews under its own id, which is nobody else`s; it is given keys that nobody signs with', async () => {
    const verifier = oldRequest();
    const [first, second] = [
      await replica.leases.renew(verifier, FIRST_PARTY),
      await replica.leases.renew(verifier, FIRST_PARTY),
    ];
    expect(first.verifierId).toBe(verifier.verifierId);
    expect(first.feedKey).toHaveLength(32);
    expect(second.feedKey).not.toEqual(first.feedKey);
    await expect(replica.leases.renew(verifier, stranger)).rejects.toEqual(refusal('foreign'));
    expect(await room.database.query('SELECT 1 FROM leases')).toHaveLength(1);
  });

  it('is told invalidations by its renewals, and a confirmation goes by its cursor', async () => {
    // A lease that outlasts whatever holds the cursor back for a moment.
    const long = await room.replica(10_000);
    const verifier = oldRequest();
    let { cursor } = await long.leases.renew(verifier, FIRST_PARTY);
    const renewing = setInterval(() => {
      void long.leases.renew({ ...verifier, cursor }, FIRST_PARTY).then((answer) => {
        cursor = answer.cursor;
      });
    }, 100);
    const { receipt } = await long.confirmations.confirm([await long.invalidate('owner', newId())]);
    clearInterval(renewing);
    expect(receipt!.verifiers).toMatchObject([{ id: verifier.verifierId, by: 'cursor' }]);
    await room.database.query('DELETE FROM leases; UPDATE invalidation_log SET longest_lease_ms = 0');
  });

  it('cannot take over the row of a claim by naming its id', async () => {
    const { verifierId } = await replica.leases.renew(request(), FIRST_PARTY);
    for (const caller of [FIRST_PARTY, stranger])
      await expect(replica.leases.renew(oldRequest({ verifierId }), caller)).rejects.toThrow(LeaseRefused);
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
    const { leases } = await replica.log.leases();
    const { verifierId } = await replica.leases.renew(verifier, FIRST_PARTY);
    expect(await replica.store.onOneConnection((here) => here.deleteLease(verifierId, leases[0]!.renewal))).toBe(false);
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
    // Beside the gateway, where a renewal of its came after the deletion.
    const nobody = { name: 'whoever was there before the restore', by: 'lease' };
    expect(receipt!.verifiers).toContainEqual(expect.objectContaining(nobody));
    for (const { by } of receipt!.verifiers) expect(by).toBe('lease');
    const answer = await replica.leases.renew(request({ cursor }), FIRST_PARTY);
    expect(answer).toMatchObject({ reset: true });
    expect(answer.cursor!.log).not.toBe(cursor!.log);
  });

  it('begun by several replicas at once is one', async () => {
    await room.database.query(`UPDATE invalidation_log SET incarnation = ''`);
    const replicas = await Promise.all(Array.from({ length: 4 }, () => room.replica(500)));
    const answers = await Promise.all(replicas.map(({ log }) => log.leases()));
    expect(new Set(answers.map(({ log }) => log)).size).toBe(1);
    expect(await room.database.query('SELECT 1 FROM leases')).toEqual([]);
  });
});
