import { type Cursor, type Invalidation, parseInvalidationEvent, type WatchResponse } from '@latchkey/contracts';
import { newId, systemClock } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { leaseCallers } from '../../src/invalidation/postgres-store.js';
import { WatchHub } from '../../src/invalidation/watch.hub.js';
import { type WatchEnd, WatchStream } from '../../src/invalidation/watch.stream.js';
import { FIRST_PARTY, newClaim, type Replica, Room, thirdParty } from './harness.js';

let room: Room;
let replica: Replica;
let hub: WatchHub;
let isUnavailable = false;
/** Fails instead of reading the log. */
let isLogUnavailable = false;
/** Where the hub's clock stands still; undefined: it goes. */
let stoppedMs: number | undefined;
const acknowledged: string[] = [];

beforeAll(async () => {
  room = await Room.open();
});
beforeEach(async () => {
  isUnavailable = false;
  isLogUnavailable = false;
  stoppedMs = undefined;
  acknowledged.length = 0;
  replica = await room.replica(60_000);
  const { store, log, feedKeys, pool } = replica;
  hub = new WatchHub({
    store: {
      onOneConnection: (work) => (isLogUnavailable ? Promise.reject(new Error('away')) : store.onOneConnection(work)),
    },
    log,
    feedKeys,
    clock: { ...systemClock, monotonicMs: () => stoppedMs ?? systemClock.monotonicMs() },
    isUnavailable: () => isUnavailable,
    leaseCallers: (ids) =>
      leaseCallers({ prepared: async (name, text, values) => (await pool.query({ name, text, values })).rows }, ids),
    onAcknowledgement: (text) => acknowledged.push(text),
  });
});
afterEach(async () => {
  await hub.stop(0);
  await room.closeParts();
});
afterAll(() => room.close());

/** A stream that is always read at once, with a lease that it stands beside. */
class Open {
  readonly heard: WatchResponse[] = [];
  readonly ends: WatchEnd[] = [];
  readonly stream: WatchStream;

  constructor(
    verifierId: string,
    caller: ReturnType<typeof thirdParty>,
    readonly cursor: Cursor,
  ) {
    this.stream = new WatchStream({
      verifierId,
      caller,
      recheck: async () => ({ allowed: true, expiresAtMs: 0 }),
      clock: systemClock,
      write: (response) => this.heard.push(response) > 0,
      end: (why) => {
        this.ends.push(why);
        hub.remove(this.stream);
      },
    });
  }

  start() {
    return hub.start(this.stream, this.cursor);
  }

  get said(): Invalidation[] {
    return this.heard.flatMap(({ message }) => (message ? parseInvalidationEvent(message)!.invalidations : []));
  }

  get resets(): number {
    return this.heard.filter(({ message, renew }) => message === '' && renew).length;
  }
}

async function opened(caller = thirdParty(), claim = newClaim()): Promise<Open> {
  const request = { verifierId: '', name: 'theirs', cursor: null, claim, version: '' };
  const { verifierId, cursor } = await replica.leases.renew(request, caller);
  return new Open(verifierId, caller, cursor!);
}

async function started(...args: Parameters<typeof opened>): Promise<Open> {
  const one = await opened(...args);
  expect(await one.start()).toBe(undefined);
  return one;
}

const times = ({ said }: Open, { id }: Invalidation) => said.filter((one) => one.id === id).length;

describe('streams', () => {
  it('are at most 64 for the tokens of one owner; another owner has as many', async () => {
    const owner = newId();
    for (let i = 0; i < 64; i++) await started(thirdParty(owner));
    await room.database.query(
      `UPDATE leases SET holder = 'user:another' WHERE verifier_id = (SELECT verifier_id FROM leases LIMIT 1)`,
    );
    const oneMore = await opened(thirdParty(owner));
    expect(await oneMore.start()).toBe('too_many');
    await started(thirdParty());
    await started(FIRST_PARTY as ReturnType<typeof thirdParty>);
    expect(hub.open).toBe(66);
  }, 120_000);

  it('are counted as calls before they say whose they are, 128 for one owner', () => {
    const all = Array.from({ length: 128 }, () => hub.admit('user:one'));
    expect(all.every((left) => typeof left === 'function')).toBe(true);
    expect(hub.admit('user:one')).toBe('too_many');
    expect(hub.admit('user:other')).toBeInstanceOf(Function);
    const [first] = all as (() => void)[];
    first!();
    first!();
    expect(hub.admit('user:one')).toBeInstanceOf(Function);
    expect(hub.admit('user:one')).toBe('too_many');
  });

  it('of one verifier are one: the new one is open before the old one ends, and stays when the new one cannot open', async () => {
    const [caller, claim] = [thirdParty(), newClaim()];
    const first = await started(caller, claim);
    const failing = await opened(caller, claim);
    isLogUnavailable = true;
    await expect(failing.start()).rejects.toThrow('away');
    isLogUnavailable = false;
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => times(first, invalidation) === 1);
    const next = await started(caller, claim);
    expect([first.ends, hub.open]).toEqual([['replaced'], 1]);
    const last = await replica.invalidate('owner', newId());
    await waitFor(() => times(next, last) === 1);
    expect([times(failing, last), times(first, last)]).toEqual([0, 0]);
  });

  it('end when the server stops, and no other begins', async () => {
    const one = await started();
    await hub.stop(0);
    expect(one.heard.at(-1)).toMatchObject({ closing: true });
    expect(one.ends).toEqual(['stopped']);
    expect(hub.admit('user:one')).toBe('stopping');
    expect(await (await opened()).start()).toBe('stopping');
  });
});

describe('what nobody has published', () => {
  it('is found in the log, and sent once with the word to renew', async () => {
    const one = await started();
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => times(one, invalidation) === 1);
    expect(one.heard.at(-1)!.renew).toBe(true);
    const other = await replica.invalidate('owner', newId());
    await waitFor(() => times(one, other) === 1);
    expect(times(one, invalidation)).toBe(1);
  });

  it('is sent once while a transaction that stays open holds the cursor back', async () => {
    const one = await started();
    const long = await replica.pool.connect();
    try {
      await long.query('BEGIN; SELECT pg_current_xact_id()');
      isUnavailable = true;
      const [first, next] = [await replica.invalidate('owner', newId()), await replica.invalidate('owner', newId())];
      await waitFor(() => times(one, first) === 1 && times(one, next) === 1);
      const last = await replica.invalidate('owner', newId());
      await waitFor(() => times(one, last) === 1);
      expect([times(one, first), times(one, next)]).toEqual([1, 1]);
    } finally {
      await long.query('ROLLBACK');
      long.release();
    }
  });

  it('is not looked for while there are no streams; what came meanwhile is not sent to a later one twice', async () => {
    const one = await started();
    one.stream.end('no_lease');
    const before = hub.counters.fromLog;
    const later = await opened();
    const invalidation = await replica.invalidate('owner', newId());
    // Where a transaction of anybody's on the same server is older, the log is followed from before it: then it comes twice.
    const isPast = 'SELECT pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8 AS past';
    await waitFor(async () => (await room.database.query(isPast, [invalidation.xid]))[0]!['past'], {
      timeoutMs: 50_000,
    });
    expect(await later.start()).toBe(undefined);
    expect(times(later, invalidation)).toBe(1);
    const last = await replica.invalidate('owner', newId());
    await waitFor(() => times(later, last) === 1);
    expect([times(later, invalidation), hub.counters.fromLog - before]).toEqual([1, 1]);
  });

  it('and is too much at once is left out, with the word to renew', async () => {
    const one = await started();
    const inserted = await room.database.query(
      `INSERT INTO invalidations (id, kind, subject, cut, created_at)
       SELECT gen_random_uuid(), 'owner', gen_random_uuid()::text, false, now() FROM generate_series(1, 1100) RETURNING id`,
    );
    const tooMany = new Set(inserted.map(({ id }) => id));
    await waitFor(() => one.resets === 1);
    expect(one.said.filter(({ id }) => tooMany.has(id))).toEqual([]);
    const behind = await opened();
    const early = new Open(behind.stream.verifierId, behind.stream.caller as ReturnType<typeof thirdParty>, one.cursor);
    expect(await early.start()).toBe(undefined);
    expect([early.resets, early.said.length]).toEqual([1, 0]);
  });

  it('because the log has begun anew, makes every verifier renew', async () => {
    const one = await started();
    await room.database.query('UPDATE invalidation_log SET begun_in = NULL'); // as after a start of PostgreSQL
    await replica.store.onOneConnection((here) => replica.log.forgotten(here));
    await waitFor(() => one.resets === 1);
  });
});

describe('a message', () => {
  it('that this replica publishes is sent once, though Redis brings it back', async () => {
    const one = await started();
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => times(one, invalidation) === 1);
    const { message } = one.heard.at(-1)!;
    hub.publish(message);
    hub.hear(message);
    expect(times(one, invalidation)).toBe(2);
    hub.hear(message);
    expect(times(one, invalidation)).toBe(3);
  });

  it('from Redis is looked at only so often in a second', async () => {
    const one = await started();
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => times(one, invalidation) === 1);
    const { message } = one.heard.at(-1)!;
    stoppedMs = systemClock.monotonicMs();
    for (let i = 0; i < 164; i++) hub.hear(message);
    expect([hub.counters.messagesDropped, times(one, invalidation)]).toEqual([100, 65]);
  });
});
