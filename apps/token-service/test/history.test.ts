import { setTimeout as sleep } from 'node:timers/promises';
import { REDIS } from '@latchkey/contracts';
import { createLogger, createRedis, firstParty, hear, systemClock, tokensCaller } from '@latchkey/runtime';
import { type OwnServer, ownServer, waitFor } from '@latchkey/testing';
import { RenewalRefused, Verifier } from '@latchkey/verifier';
import { migrate } from '../src/migrate.js';
import { asRole } from './database.js';
import { GATEWAY_RPC_SECRET, issue, type Person, type World, world } from './harness.js';
import { newClaim } from './invalidation/harness.js';

const LEASE_MS = 1_000;
/** Checks are made for so long after a revocation was effective: for more than a lease. */
const CHECKED_MS = 1_500;

interface Place {
  server: OwnServer;
  w: World;
  admin: Person;
}

/** Stopped: each test's server begins as a copy of it. */
let migrated: OwnServer;
beforeAll(async () => {
  migrated = await ownServer(async (url) => void (await migrate(url)));
  await migrated.stop();
});
afterAll(() => migrated.close());

async function placeAt(server: OwnServer, leaseMs: number): Promise<Place> {
  const w = await world({ env: { DATABASE_URL: asRole(server.url, 'latchkey_service'), LEASE_MS: String(leaseMs) } });
  return { server, w, admin: await w.signIn() };
}

/** What a test has opened, closed when it ends. */
const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface Gateway {
  verifier: Verifier;
  /** Neither hears nor asks while it is paused. */
  paused: boolean;
  accepts(secret: string): Promise<boolean>;
}

/**
 * A verifier as a gateway has it: gRPC to one token-service, Redis for the feed.
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
          hear(subscriber!, REDIS.invalidations, (text) => void (made.paused || onMessage(text))),
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

async function revoke(person: Person, id: string): Promise<Revoked> {
  const answer = await person.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: { reason: 'exposed' } });
  expect(answer).toMatchObject({ status: 200, body: { effective: true } });
  return answer.body;
}

async function mustNeverAccept(one: Gateway, secret: string): Promise<void> {
  const sinceMs = performance.now();
  do {
    expect(await one.accepts(secret)).toBe(false);
    await sleep(50);
  } while (performance.now() - sinceMs < CHECKED_MS);
}

/** Spends transaction ids, so that a history that was put back lags behind. */
const spend = (server: OwnServer, ids: number) =>
  server.query(`DO $$ BEGIN FOR i IN 1..${ids} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`);

const isBack = (admin: Person) => waitFor(async () => (await admin.call('GET /v1/session')).status === 200);

describe('a deposed primary that lives on', () => {
  it('lets nobody in whom the new primary has revoked, soon after the promotion and long after', async () => {
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    const standBy = await server.standBy();
    const { w, admin } = await placeAt(server, LEASE_MS);
    closing.push(() => w.close());
    // A deposed primary answers nothing: its silence is waited for often here.
    const old = await gateway(w, 500);
    const [soon, late] = [await issue(admin), await issue(admin)];
    for (const { secret } of [soon, late]) await waitFor(() => old.accepts(secret));

    await standBy.promote();
    const second = await w.another({ DATABASE_URL: asRole(standBy.url, 'latchkey_service') });
    const there = w.as({ cookie: admin.cookie! }, second);
    const { receipt } = await revoke(there, soon.id);
    expect(receipt!.verifiers).toContainEqual(
      expect.objectContaining({ name: 'whoever was there before the restore', by: 'lease' }),
    );
    await mustNeverAccept(old, soon.secret);
    // The lease in nobody's hands is over by now.
    await revoke(there, late.id);
    await mustNeverAccept(old, late.secret);
    const [token, session] = await Promise.all([
      w.bearer(late.secret).call('GET /v1/tokens/self'),
      admin.call('GET /v1/session'),
    ]);
    expect([token.status, session.status]).toEqual([503, 503]);
    expect((await w.bearer(late.secret, second).call('GET /v1/tokens/self')).status).toBe(401);
    await server.query('ALTER SYSTEM RESET synchronous_standby_names'); // so that it lets those go who wait for it
    await server.query('SELECT pg_reload_conf()');
  });
});

describe('at one server', () => {
  let place: Place;

  beforeAll(async () => {
    place = await placeAt(await ownServer(migrated), LEASE_MS);
  });
  afterAll(async () => {
    await place.w.close();
    await place.server.close();
  });

  async function copied(): Promise<string> {
    const { server, admin } = place;
    await server.stop();
    const copy = server.copy();
    await server.start();
    await isBack(admin);
    return copy;
  }

  async function putBack(copy: string): Promise<void> {
    const { server, admin } = place;
    await server.stop();
    server.putBack(copy);
    await server.start();
    await isBack(admin);
  }

  it('a commit whose wait for the stand-by was cancelled is not taken for one, though PostgreSQL answers success', async () => {
    const { server, admin } = place;
    const { id } = await issue(admin);
    await server.query(`ALTER SYSTEM SET synchronous_standby_names = 'absent'`);
    await server.query('SELECT pg_reload_conf()');
    const revoking = admin.call(`POST /v1/tokens/${id}/revoke`, { body: {} });
    let answered = false;
    void revoking.finally(() => {
      answered = true;
    });
    // Each wait that is cancelled ends with a warning: proofs, the change, whatever else commits.
    await waitFor(async () => {
      await server.query(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`);
      return answered;
    });
    await server.query('ALTER SYSTEM RESET synchronous_standby_names');
    await server.query('SELECT pg_reload_conf()');
    expect((await revoking).status).toBe(503);
    const metrics = await (await fetch(`${place.w.service.opsUrl}/metrics`)).text();
    expect(metrics).toMatch(/latchkey_authority_proofs_total\{outcome="lost",service="token-service"\} [1-9]/);
    expect(place.w.logs()).toContain('PostgreSQL could not show that it is the primary');
    const again = await waitFor(async () => {
      const answer = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
      return answer.status === 200 ? answer.body : null;
    });
    expect(again.effective).toBe(true);
  });

  it('a folder put back in place is noticed: a gateway that was away forgets the other history', async () => {
    const { server, w, admin } = place;
    const { id, secret } = await issue(admin);
    const copy = await copied();
    await spend(server, 20);
    const away = await gateway(w);
    expect(await away.accepts(secret)).toBe(true);
    away.paused = true;
    await putBack(copy);
    const { receipt } = await revoke(admin, id);
    expect(receipt!.verifiers).toContainEqual(
      expect.objectContaining({ name: 'whoever was there before the database started', by: 'lease' }),
    );
    await spend(server, 200);
    away.paused = false;
    const { renewals } = away.verifier.counters;
    await waitFor(() => away.verifier.counters.renewals > renewals);
    await mustNeverAccept(away, secret);
  });

  it('a folder put back while a gateway runs is noticed: when the revocation is effective, it has forgotten too', async () => {
    const { server, w, admin } = place;
    const { id, secret } = await issue(admin);
    const copy = await copied();
    await spend(server, 50);
    const one = await gateway(w);
    expect(await one.accepts(secret)).toBe(true);
    await putBack(copy);
    await revoke(admin, id);
    await mustNeverAccept(one, secret);
  });
});

describe('a database that was merely started again', () => {
  it('empties nobody’s memory, and goes on with its log', async () => {
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    const { w, admin } = await placeAt(server, 15_000);
    closing.push(() => w.close());
    const { secret } = await issue(admin);
    const one = await gateway(w);
    expect(await one.accepts(secret)).toBe(true);
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

describe('a revocation that is still waited for when a folder is put back', () => {
  const LONG_LEASE_MS = 8_000;
  let place: Place;
  let still: Gateway;
  let token: { id: string; secret: string };

  beforeEach(async () => {
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    place = await placeAt(server, LONG_LEASE_MS);
    closing.push(() => place.w.close());
    token = await issue(place.admin);
    still = await gateway(place.w);
    await waitFor(() => still.accepts(token.secret));
  });

  /** The server's folder as it is now. */
  async function copied(): Promise<string> {
    await place.server.stop();
    const copy = place.server.copy();
    await place.server.start();
    await isBack(place.admin);
    await waitFor(async () => (await place.server.query(`SELECT 1 FROM leases WHERE caller = 'nobody'`)).length > 0);
    return copy;
  }

  /** In its place; from then on there are more transaction ids than the other history had. */
  async function putBack(copy: string): Promise<void> {
    await place.server.stop();
    place.server.putBack(copy);
    await place.server.start();
    await isBack(place.admin);
    await spend(place.server, 200);
  }

  /** Committed, and waits for the gateway, which neither hears nor asks. */
  async function revoking(reason: string) {
    still.paused = true;
    const answered = place.admin.call<Revoked>(`POST /v1/tokens/${token.id}/revoke`, { body: { reason } });
    const isCommitted = `SELECT 1 FROM tokens WHERE id = '${token.id}' AND revoked_at IS NOT NULL`;
    await waitFor(async () => (await place.server.query(isCommitted)).length === 1);
    return { answered };
  }

  it.each(['unspecified', 'exposed'])(
    'is not said to be effective where it has been forgotten, by a missing row or a cursor: %s',
    async (reason) => {
      const copy = await copied();
      const { answered } = await revoking(reason);
      await putBack(copy);
      still.paused = false;
      expect(await answered).toMatchObject({
        status: 503,
        body: { code: 'unavailable', detail: expect.stringContaining('put back to a state from before this change') },
      });
      // It is as the detail says: the change has to be made again.
      expect(await still.accepts(token.secret)).toBe(true);
      expect((await revoke(place.admin, token.id)).effective).toBe(true);
      expect(await still.accepts(token.secret)).toBe(false);
    },
  );

  it('is effective in the end where the folder knows it', async () => {
    const { answered } = await revoking('unspecified');
    const copy = await copied();
    const sinceMs = performance.now();
    await putBack(copy);
    still.paused = false;
    // Not before whoever may have been told otherwise in between has lapsed, which may be longer than it is patient.
    const { status, body } = await answered;
    expect(status).toBe(body.effective ? 200 : 202);
    if (body.effective) expect(performance.now() - sinceMs).toBeGreaterThan(LONG_LEASE_MS);
    expect((await revoke(place.admin, token.id)).effective).toBe(true);
    expect(await still.accepts(token.secret)).toBe(false);
  });
});

describe('a folder that was swapped for an old one and put back again, between two renewals', () => {
  it('lets nobody in after the next renewal, and no repeat says `effective` before', async () => {
    const leaseMs = 30_000;
    const server = await ownServer(migrated);
    closing.push(() => server.close());
    const { w, admin } = await placeAt(server, leaseMs);
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
    /** As if the time of leases in nobody's hands had passed. */
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
    // As the database has it at that moment, though nobody should have put it there.
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
