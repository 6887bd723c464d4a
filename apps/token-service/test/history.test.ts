import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { REDIS } from '@latchkey/contracts';
import { createLogger, createRedis, firstParty, subscribe, systemClock, tokensCaller } from '@latchkey/runtime';
import { type OwnServer, ownServer, waitFor } from '@latchkey/testing';
import { RenewalRefused, Verifier } from '@latchkey/verifier';
import { migrate } from '../src/migrate.js';
import { asRole } from './database.js';
import { GATEWAY_RPC_SECRET, issue, type Person, type World, world } from './harness.js';
import { newClaim } from './invalidation/harness.js';

const LEASE_MS = 1_000;
/** How long checks go on after a revocation was effective: longer than a lease. */
const CHECKED_MS = 1_500;

interface Setup {
  server: OwnServer;
  w: World;
  admin: Person;
}

/** Stopped: the server of each test starts as a copy of it. */
let migrated: OwnServer;
beforeAll(async () => {
  migrated = await ownServer(async (url) => void (await migrate(url)));
  await migrated.stop();
});
afterAll(() => migrated.close());

/** @param ledger with one, a promoted standby settles by itself; without, a folder put back loses what it lacks */
async function setUp(server: OwnServer, leaseMs: number, ledger = false): Promise<Setup> {
  const kept = { LEDGER_DIR: path.join(server.dir, '../ledger'), LEDGER_KEY: 'ledger-key-for-tests-0123456789abcdef' };
  const env = { DATABASE_URL: asRole(server.url, 'latchkey_service'), LEASE_MS: String(leaseMs), ...(ledger && kept) };
  const w = await world({ env });
  return { server, w, admin: await w.signIn() };
}

/** What a test has opened; closed at its end. */
const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface Gateway {
  verifier: Verifier;
  /** While paused, it neither receives nor renews. */
  paused: boolean;
  accepts(secret: string): Promise<boolean>;
}

/**
 * A verifier set up as in a gateway: gRPC to one token-service, Redis for the feed.
 * @param timeoutMs of its calls; default: as a gateway's
 */
async function gateway(w: World, timeoutMs = 2_000): Promise<Gateway> {
  const logger = createLogger('test', 'fatal');
  const [publisher, subscriber] = [1, 2].map(() => createRedis(w.redis.url, 'test', logger));
  const rpc = tokensCaller({
    address: w.service.rpcAddress,
    authorization: firstParty(GATEWAY_RPC_SECRET),
    timeoutMs,
  });
  const made: Gateway = {
    paused: false,
    accepts: async (secret) => (await made.verifier.verify(secret, { scopes: [] })).allowed,
    verifier: new Verifier({
      name: 'gateway',
      newClaim,
      clock: systemClock,
      source: {
        lookup: (hash) => rpc.lookup({ hash }),
        renew: async (request) => {
          if (made.paused) throw new Error('paused');
          return rpc.renew(request).catch((error: { code?: number; message: string }) => {
            if (error.code === 7) throw new RenewalRefused('identity', error.message);
            throw error;
          });
        },
        release: async (request) => void (await rpc.release(request)),
      },
      feed: {
        subscribe: (onMessage) =>
          subscribe(subscriber!, REDIS.invalidations, (text) => void (made.paused || onMessage(text))),
        acknowledge: async (text) => void (await publisher!.publish(REDIS.acknowledgements, text)),
      },
    }),
  };
  await made.verifier.start();
  closing.push(async () => {
    await made.verifier.stop();
    rpc.close();
    publisher!.disconnect();
    subscriber!.disconnect();
  });
  return made;
}

interface Revoked {
  effective: boolean;
  receipt: { elapsedMs: number; verifiers: { name: string; by: string }[] } | null;
}

/**
 * Repeated until it is effective, as a response that is not says: a database that has just started ends connections that lived
 * before, and a busy machine makes a verifier later than a request waits.
 */
async function revoke(person: Person, id: string): Promise<Revoked> {
  const revoked = async () => {
    const tried = await person.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: { reason: 'exposed' } });
    if (tried.status === 202 || tried.status === 503) return null;
    expect(tried).toMatchObject({ status: 200, body: { effective: true } });
    return tried.body;
  };
  return waitFor(revoked, { timeoutMs: 40_000, what: 'an effective revocation' });
}

async function mustNeverAccept(one: Gateway, secret: string): Promise<void> {
  const sinceMs = performance.now();
  do {
    expect(await one.accepts(secret)).toBe(false);
    await sleep(50);
  } while (performance.now() - sinceMs < CHECKED_MS);
}

/** Uses up transaction ids, so that a restored history is behind. */
const spend = (server: OwnServer, ids: number) =>
  server.query(`DO $$ BEGIN FOR i IN 1..${ids} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`);

const isBack = (admin: Person) => waitFor(async () => (await admin.call('GET /v1/session')).status === 200);

describe('a deposed primary that still runs', () => {
  it('a deposed primary accepts no token that the new primary has revoked, soon after the promotion and long after', async () => {
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    const standby = await server.standBy();
    const { w, admin } = await setUp(server, LEASE_MS, true);
    closing.push(() => w.close());
    // A deposed primary does not respond: short timeouts keep the test fast.
    const old = await gateway(w, 500);
    const [soon, late] = [await issue(admin), await issue(admin)];
    for (const { secret } of [soon, late]) await waitFor(() => old.accepts(secret));

    await standby.promote();
    const second = await w.another({ DATABASE_URL: asRole(standby.url, 'latchkey_service') });
    const there = w.as({ cookie: admin.cookie! }, second);
    await isBack(there);
    await revoke(there, soon.id);
    await mustNeverAccept(old, soon.secret);
    // The unowned lease has expired by now.
    await revoke(there, late.id);
    await mustNeverAccept(old, late.secret);
    const [token, session] = await Promise.all([
      w.bearer(late.secret).call('GET /v1/tokens/self'),
      admin.call('GET /v1/session'),
    ]);
    expect([token.status, session.status]).toEqual([503, 503]);
    expect((await w.bearer(late.secret, second).call('GET /v1/tokens/self')).status).toBe(401);
    await server.query('ALTER SYSTEM RESET synchronous_standby_names'); // so that commits waiting for it end
    await server.query('SELECT pg_reload_conf()');
  });
});

describe('at one server', () => {
  let setup: Setup;

  beforeAll(async () => {
    setup = await setUp(await ownServer(migrated), LEASE_MS);
  });
  afterAll(async () => {
    await setup.w.close();
    await setup.server.close();
  });

  async function copyFolder(): Promise<string> {
    const { server, admin } = setup;
    await server.stop();
    const copy = server.copy();
    await server.start();
    await isBack(admin);
    return copy;
  }

  async function restore(copy: string): Promise<void> {
    const { server, admin } = setup;
    await server.stop();
    server.putBack(copy);
    await server.start();
    await isBack(admin);
  }

  it('a commit whose wait for the standby was cancelled does not count, though PostgreSQL reports success', async () => {
    const { server, admin } = setup;
    const { id } = await issue(admin);
    await server.query(`ALTER SYSTEM SET synchronous_standby_names = 'absent'`);
    await server.query('SELECT pg_reload_conf()');
    const revoking = admin.call(`POST /v1/tokens/${id}/revoke`, { body: {} });
    let hasReturned = false;
    void revoking.finally(() => {
      hasReturned = true;
    });
    // Each cancelled wait ends with a warning: proofs, the change, every other commit.
    await waitFor(async () => {
      await server.query(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`);
      return hasReturned;
    });
    await server.query('ALTER SYSTEM RESET synchronous_standby_names');
    await server.query('SELECT pg_reload_conf()');
    expect((await revoking).status).toBe(503);
    const metrics = await (await fetch(`${setup.w.service.opsUrl}/metrics`)).text();
    expect(metrics).toMatch(/latchkey_authority_proofs_total\{outcome="lost",service="token-service"\} [1-9]/);
    expect(setup.w.logs()).toContain('PostgreSQL could not show that it is the primary');
    const again = await waitFor(async () => {
      const response = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
      return response.status === 200 ? response.body : null;
    });
    expect(again.effective).toBe(true);
  });

  it('a data folder restored in place is noticed: a gateway that was paused drops what it read of the other history', async () => {
    const { server, w, admin } = setup;
    const { id, secret } = await issue(admin);
    const copy = await copyFolder();
    await spend(server, 20);
    const pausedOne = await gateway(w);
    await waitFor(() => pausedOne.accepts(secret));
    pausedOne.paused = true;
    await restore(copy);
    const { receipt } = await revoke(admin, id);
    expect(receipt!.verifiers).toContainEqual(
      expect.objectContaining({ name: 'whoever was there before the database started', by: 'lease' }),
    );
    await spend(server, 200);
    pausedOne.paused = false;
    const { renewals } = pausedOne.verifier.counters;
    await waitFor(() => pausedOne.verifier.counters.renewals > renewals);
    await mustNeverAccept(pausedOne, secret);
  });

  it('a data folder restored while a gateway runs is noticed: once the revocation is effective, the gateway rejects the token', async () => {
    const { server, w, admin } = setup;
    const { id, secret } = await issue(admin);
    const copy = await copyFolder();
    await spend(server, 50);
    const one = await gateway(w);
    await waitFor(() => one.accepts(secret));
    await restore(copy);
    await revoke(admin, id);
    await mustNeverAccept(one, secret);
  });
});

describe('a restarted database', () => {
  it("a restart of the database empties no verifier's memory, and its log continues", async () => {
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    const { w, admin } = await setUp(server, 15_000);
    closing.push(() => w.close());
    const { secret } = await issue(admin);
    const one = await gateway(w);
    await waitFor(() => one.accepts(secret));
    const [before] = await server.query('SELECT log FROM invalidation_log');
    const { resets } = one.verifier.counters;
    await server.stop();
    await server.start();
    const { renewals } = one.verifier.counters;
    await waitFor(() => one.verifier.counters.renewals > renewals, { timeoutMs: 20_000 });
    expect(one.verifier.counters.resets).toBe(resets);
    expect(await server.query('SELECT log FROM invalidation_log')).toEqual([before]);
    await waitFor(async () => (await server.query(`SELECT 1 FROM leases WHERE caller = 'nobody'`)).length === 1);
  });
});

describe('a revocation that is pending when a data folder is restored', () => {
  const LONG_LEASE_MS = 8_000;
  let setup: Setup;
  let silent: Gateway;
  let token: { id: string; secret: string };

  beforeEach(async () => {
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    setup = await setUp(server, LONG_LEASE_MS);
    closing.push(() => setup.w.close());
    token = await issue(setup.admin);
    silent = await gateway(setup.w);
    await waitFor(() => silent.accepts(token.secret));
  });

  /** A copy of the server's data folder as it is now. */
  async function copyFolder(): Promise<string> {
    await setup.server.stop();
    const copy = setup.server.copy();
    await setup.server.start();
    await isBack(setup.admin);
    await waitFor(async () => (await setup.server.query(`SELECT 1 FROM leases WHERE caller = 'nobody'`)).length > 0);
    return copy;
  }

  /** Restores the copy in place, and then uses more transaction ids than the other history had. */
  async function restore(copy: string): Promise<void> {
    await setup.server.stop();
    setup.server.putBack(copy);
    await setup.server.start();
    await isBack(setup.admin);
    await spend(setup.server, 200);
  }

  /** Without a ledger, a folder put back is held until somebody decides, where it was noticed before the service saw a mere start. */
  async function decided({ w, server }: Setup, admin: Person): Promise<Person> {
    if ((await server.query('SELECT 1 FROM restores WHERE settled_at IS NULL')).length === 0) return admin;
    const again = await w.signIn();
    const settled = await again.call('POST /v1/system/restore/settle', { body: { choice: 'accept' } });
    expect(settled.status).toBeLessThan(300);
    return again;
  }

  /** Committed, and waiting for the paused gateway. */
  async function revoking(reason: string) {
    silent.paused = true;
    const responding = setup.admin.call<Revoked>(`POST /v1/tokens/${token.id}/revoke`, { body: { reason } });
    const isCommitted = `SELECT 1 FROM tokens WHERE id = '${token.id}' AND revoked_at IS NOT NULL`;
    await waitFor(async () => (await setup.server.query(isCommitted)).length === 1);
    return { responding };
  }

  it.each(['unspecified', 'exposed'])(
    'a pending revocation is not called effective when a restored folder lacks it, by a missing row or a cursor: %s',
    async (reason) => {
      const copy = await copyFolder();
      const { responding } = await revoking(reason);
      await restore(copy);
      silent.paused = false;
      expect(await responding).toMatchObject({
        status: 503,
        // The server can have been stopped between its commit and the response to it.
        body: {
          code: 'unavailable',
          detail: expect.stringMatching(/put back to a state from before this change|unknown/),
        },
      });
      // As the detail says, the change has to be repeated.
      let { admin } = setup;
      const isAccepted = async () => {
        admin = await decided(setup, admin);
        return silent.accepts(token.secret);
      };
      await waitFor(isAccepted, { timeoutMs: 60_000, what: 'the token' });
      expect((await revoke(admin, token.id)).effective).toBe(true);
      expect(await silent.accepts(token.secret)).toBe(false);
    },
    180_000,
  );

  it('a pending revocation becomes effective when the restored folder contains it', async () => {
    const { responding } = await revoking('unspecified');
    const copy = await copyFolder();
    const sinceMs = performance.now();
    await restore(copy);
    silent.paused = false;
    // Not before every lease that can have read the other history has lapsed, which can exceed the wait of the request.
    const { status, body } = await responding;
    expect(status).toBe(body.effective ? 200 : 202);
    if (body.effective) expect(performance.now() - sinceMs).toBeGreaterThan(LONG_LEASE_MS);
    expect((await revoke(setup.admin, token.id)).effective).toBe(true);
    expect(await silent.accepts(token.secret)).toBe(false);
  });
});

describe('a data folder swapped for an old one and back, between two renewals', () => {
  it('after a data folder was swapped for an old one and back, no repeat is effective before the next renewal, and no revoked token is accepted after it', async () => {
    // Both swaps must come between two renewals, on a slow machine too.
    const leaseMs = 60_000;
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    const { w, admin } = await setUp(server, leaseMs);
    closing.push(() => w.close());
    const tokens = [await issue(admin), await issue(admin)];
    const reasons = ['unspecified', 'exposed'];
    const swap = async (folder?: string) => {
      await server.stop();
      const before = server.copy();
      if (folder) server.putBack(folder);
      await server.start();
      await isBack(admin);
      return before;
    };
    /** As if unowned leases had expired. */
    const laterOn = () =>
      waitFor(async () => (await server.query(`DELETE FROM leases WHERE caller = 'nobody' RETURNING 1`)).length > 0);
    const old = await swap();
    await laterOn();
    const one = await gateway(w);
    for (const [i, reason] of reasons.entries())
      expect(await admin.call<Revoked>(`POST /v1/tokens/${tokens[i]!.id}/revoke`, { body: { reason } })).toMatchObject({
        status: 200,
        body: { effective: true },
      });
    const { renewals: first } = one.verifier.counters;
    await waitFor(() => one.verifier.counters.renewals > first, { timeoutMs: leaseMs });

    const { renewals, resets } = one.verifier.counters;
    const present = await swap(old);
    // As the database is at that moment, though no one should restore it so.
    for (const { secret } of tokens) await waitFor(() => one.accepts(secret));
    await swap(present);
    expect(one.verifier.counters.renewals).toBe(renewals);
    for (const [i, reason] of reasons.entries()) {
      const path = `POST /v1/tokens/${tokens[i]!.id}/revoke`;
      const repeated = await admin.call<Revoked>(path, { body: { reason }, headers: { prefer: 'wait=0' } });
      expect(repeated).toMatchObject({ status: 202, body: { effective: false } });
      expect(repeated.text).toContain('whoever was there before the database started');
    }
    await waitFor(() => one.verifier.counters.renewals > renewals, { timeoutMs: leaseMs });
    for (const { secret } of tokens) expect(await one.accepts(secret)).toBe(false);
    expect(one.verifier.counters.resets).toBe(resets);
    await laterOn();
    for (const [i, reason] of reasons.entries())
      expect(await admin.call<Revoked>(`POST /v1/tokens/${tokens[i]!.id}/revoke`, { body: { reason } })).toMatchObject({
        status: 200,
        body: { effective: true },
      });
  });
});
