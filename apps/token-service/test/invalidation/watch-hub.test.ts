import { type Cursor, type Invalidation, parseInvalidationEvent, type WatchResponse } from '@latchkey/contracts';
import { newId, systemClock } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { leaseCallers } from '../../src/invalidation/postgres-store.js';
import { WatchHub } from '../../src/invalidation/watch.hub.js';
import { type WatchEnd, WatchStream } from '../../src/invalidation/watch.stream.js';
import { Cluster, FIRST_PARTY, newClaim, type Replica, thirdParty } from './harness.js';

let cluster: Cluster;
let replica: Replica;
let hub: WatchHub;
let isUnavailable = false;
/** While set, reading the log fails. */
let isLogUnavailable = false;
/** The time at which the hub's clock is stopped; undefined: it runs. */
let stoppedMs: number | undefined;
const acknowledged: string[] = [];

beforeAll(async () => {
  cluster = await Cluster.open();
});
beforeEach(async () => {
  isUnavailable = false;
  isLogUnavailable = false;
  stoppedMs = undefined;
  acknowledged.length = 0;
  replica = await cluster.replica(60_000);
  const { store, log, feedKeys, pool } = replica;
  hub = new WatchHub({
    store: {
      onOneConnection: (work) =>
        isLogUnavailable ? Promise.reject(new Error('the log is unavailable')) : store.onOneConnection(work),
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
  await cluster.reset();
});
afterAll(() => cluster.close());

/** A stream that is always read at once, beside a lease. */
class Open {
  readonly responses: WatchResponse[] = [];
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
      write: (response) => this.responses.push(response) > 0,
      end: (why) => {
        this.ends.push(why);
        hub.remove(this.stream);
      },
    });
  }

  start() {
    return hub.start(this.stream, this.cursor);
  }

  get invalidations(): Invalidation[] {
    return this.responses.flatMap(({ message }) => (message ? parseInvalidationEvent(message)!.invalidations : []));
  }

  get resets(): number {
    return this.responses.filter(({ message, renew }) => message === '' && renew).length;
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

const countOf = ({ invalidations }: Open, { id }: Invalidation) => invalidations.filter((one) => one.id === id).length;

describe('streams', () => {
  it('the tokens of one owner have at most 64 streams; another owner has as many', async () => {
    const owner = newId();
    for (let i = 0; i < 64; i++) await started(thirdParty(owner));
    await cluster.database.query(
      `UPDATE leases SET holder = 'user:another' WHERE verifier_id = (SELECT verifier_id FROM leases LIMIT 1)`,
    );
    const oneMore = await opened(thirdParty(owner));
    expect(await oneMore.start()).toBe('too_many');
    await started(thirdParty());
    await started(FIRST_PARTY as ReturnType<typeof thirdParty>);
    expect(hub.open).toBe(66);
  }, 120_000);

  it('one owner has at most 128 stream calls before their first request', () => {
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

  it('one verifier has one stream: a new one opens before the old one ends, which stays open when the new one fails', async () => {
    const [caller, claim] = [thirdParty(), newClaim()];
    const first = await started(caller, claim);
    const failing = await opened(caller, claim);
    isLogUnavailable = true;
    await expect(failing.start()).rejects.toThrow('the log is unavailable');
    isLogUnavailable = false;
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => countOf(first, invalidation) === 1);
    const next = await started(caller, claim);
    expect([first.ends, hub.open]).toEqual([['replaced'], 1]);
    const last = await replica.invalidate('owner', newId());
    await waitFor(() => countOf(next, last) === 1);
    expect([countOf(failing, last), countOf(first, last)]).toEqual([0, 0]);
  });

  it('streams end when the server stops, and no other begins', async () => {
    const one = await started();
    await hub.stop(0);
    expect(one.responses.at(-1)).toMatchObject({ closing: true });
    expect(one.ends).toEqual(['stopped']);
    expect(hub.admit('user:one')).toBe('stopping');
    expect(await (await opened()).start()).toBe('stopping');
  });
});

describe('invalidations that were not published', () => {
  it('an unpublished invalidation is found in the log, and sent once with a request to renew', async () => {
    const one = await started();
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => countOf(one, invalidation) === 1);
    expect(one.responses.at(-1)!.renew).toBe(true);
    const other = await replica.invalidate('owner', newId());
    await waitFor(() => countOf(one, other) === 1);
    expect(countOf(one, invalidation)).toBe(1);
  });

  it('an unpublished invalidation is sent once while an open transaction holds the cursor back', async () => {
    const one = await started();
    const long = await replica.pool.connect();
    try {
      await long.query('BEGIN; SELECT pg_current_xact_id()');
      isUnavailable = true;
      const [first, next] = [await replica.invalidate('owner', newId()), await replica.invalidate('owner', newId())];
      await waitFor(() => countOf(one, first) === 1 && countOf(one, next) === 1);
      const last = await replica.invalidate('owner', newId());
      await waitFor(() => countOf(one, last) === 1);
      expect([countOf(one, first), countOf(one, next)]).toEqual([1, 1]);
    } finally {
      await long.query('ROLLBACK');
      long.release();
    }
  });

  it('without streams the log is not read, and what came meanwhile is not sent to a later stream twice', async () => {
    const one = await started();
    one.stream.end('no_lease');
    const before = hub.counters.fromLog;
    const later = await opened();
    const invalidation = await replica.invalidate('owner', newId());
    // While an older transaction runs on the server, the log is read from before it: then the invalidation comes twice.
    const isPast = 'SELECT pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8 AS past';
    await waitFor(async () => (await cluster.database.query(isPast, [invalidation.xid]))[0]!['past'], {
      timeoutMs: 50_000,
    });
    expect(await later.start()).toBe(undefined);
    expect(countOf(later, invalidation)).toBe(1);
    const last = await replica.invalidate('owner', newId());
    await waitFor(() => countOf(later, last) === 1);
    expect([countOf(later, invalidation), hub.counters.fromLog - before]).toEqual([1, 1]);
  });

  it('too many unpublished invalidations at once are skipped, with a request to renew', async () => {
    const one = await started();
    const inserted = await cluster.database.query(
      `INSERT INTO invalidations (id, kind, subject, cut, created_at)
       SELECT gen_random_uuid(), 'owner', gen_random_uuid()::text, false, now() FROM generate_series(1, 1100) RETURNING id`,
    );
    const tooMany = new Set(inserted.map(({ id }) => id));
    await waitFor(() => one.resets === 1);
    expect(one.invalidations.filter(({ id }) => tooMany.has(id))).toEqual([]);
    const behind = await opened();
    const early = new Open(behind.stream.verifierId, behind.stream.caller as ReturnType<typeof thirdParty>, one.cursor);
    expect(await early.start()).toBe(undefined);
    expect([early.resets, early.invalidations.length]).toEqual([1, 0]);
  });

  it('a new log makes every verifier renew', async () => {
    const one = await started();
    await cluster.database.query('UPDATE invalidation_log SET begun_in = NULL'); // as after a start of PostgreSQL
    await replica.store.onOneConnection((here) => replica.log.forgotten(here));
    await waitFor(() => one.resets === 1);
  });
});

describe('messages', () => {
  it('a message that this replica publishes is sent once, though Redis returns it', async () => {
    const one = await started();
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => countOf(one, invalidation) === 1);
    const { message } = one.responses.at(-1)!;
    hub.publish(message);
    hub.receive(message);
    expect(countOf(one, invalidation)).toBe(2);
    hub.receive(message);
    expect(countOf(one, invalidation)).toBe(3);
  });

  it('only a limited number of messages from Redis is processed in a second', async () => {
    const one = await started();
    const invalidation = await replica.invalidate('owner', newId());
    await waitFor(() => countOf(one, invalidation) === 1);
    const { message } = one.responses.at(-1)!;
    stoppedMs = systemClock.monotonicMs();
    for (let i = 0; i < 164; i++) hub.receive(message);
    expect([hub.counters.messagesDropped, countOf(one, invalidation)]).toEqual([100, 65]);
  });
});
