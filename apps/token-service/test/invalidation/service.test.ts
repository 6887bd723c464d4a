import { status } from '@grpc/grpc-js';
import { REDIS, type Receipt, type TokensMethods, usageTicket, type VerifierItem } from '@latchkey/contracts';
import {
  bearer,
  type Caller,
  createLogger,
  createRedis,
  firstParty,
  newId,
  renewalError,
  subscribe,
  systemClock,
  tokensCaller,
} from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { hashSecret } from '@latchkey/token-format';
import { RenewalRefused, Verifier } from '@latchkey/verifier';
import type { TokenService } from '../../src/app.js';
import { GATEWAY_RPC_SECRET, issue, type Person, project, USAGE_SECRET, type World, world } from '../harness.js';
import { newClaim } from './harness.js';

let w: World;
let second: TokenService;
let admin: Person;
const closing: (() => Promise<void>)[] = [];

function caller(service: TokenService, authorization = firstParty(GATEWAY_RPC_SECRET)): Caller<TokensMethods> {
  const made = tokensCaller({ address: service.rpcAddress, authorization, timeoutMs: 5_000 });
  closing.push(async () => made.close());
  return made;
}

/** A verifier set up as in a gateway: gRPC to one replica, Redis for the feed. */
async function gateway(service: TokenService, authorization?: string): Promise<{ verifier: Verifier; cutOff(): void }> {
  const logger = createLogger('test', 'fatal');
  const [publisher, subscriber] = [1, 2].map(() => createRedis(w.redis.url, 'test', logger));
  const rpc = caller(service, authorization);
  let cut = false;
  const unlessCut = async <T>(call: () => Promise<T>): Promise<T> => {
    if (cut) throw new Error('cut off');
    return call();
  };
  const verifier = new Verifier({
    name: 'gateway',
    routesHash: () => '0123456789abcdef',
    newClaim,
    clock: systemClock,
    source: {
      lookup: (hash) => unlessCut(() => rpc.lookup({ hash })),
      renew: (request) =>
        unlessCut(() => rpc.renew(request)).catch((error: Error) => {
          const rejection = renewalError(error);
          throw rejection ? new RenewalRefused(rejection, error.message) : error;
        }),
      release: async (request) => void (await unlessCut(() => rpc.release(request))),
    },
    feed: {
      subscribe: (onMessage) =>
        subscribe(subscriber!, REDIS.invalidations, (text) => {
          if (!cut) onMessage(text);
        }),
      acknowledge: async (text) => void (await publisher!.publish(REDIS.acknowledgements, text)),
    },
  });
  await verifier.start();
  closing.unshift(async () => {
    await verifier.stop();
    publisher!.disconnect();
    subscriber!.disconnect();
  });
  return {
    verifier,
    cutOff: () => {
      cut = true;
    },
  };
}

interface Revoked {
  effective: boolean;
  receipt: Receipt | null;
  pending: { id: string }[];
}

/** Rows of ended leases have to be looked at before they lapse, on a busy machine too. */
const LEASE_MS = 3_000;

beforeAll(async () => {
  w = await world({ quiet: true, env: { LEASE_MS: String(LEASE_MS) } });
  second = await w.another();
  admin = await w.signIn();
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});
afterAll(() => w.close());

const allowed = async ({ verifier }: { verifier: Verifier }, secret: string) =>
  (await verifier.verify(secret, { scopes: [] })).allowed;

describe('a revocation over HTTP', () => {
  it('once a revocation over HTTP is effective, the gateways of every replica reject the token', async () => {
    const gateways = [await gateway(w.service), await gateway(second)];
    for (let i = 0; i < 5; i++) {
      const { id, secret } = await issue(admin);
      for (const each of gateways) expect(await allowed(each, secret)).toBe(true);
      const response = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
      for (const each of gateways) expect(await allowed(each, secret)).toBe(false);
      expect(response.status).toBe(200);
      expect(response.body).toMatchObject({ effective: true, pending: [] });
      expect(response.body.receipt!.verifiers).toHaveLength(2);
      for (const { by } of response.body.receipt!.verifiers) expect(['ack', 'cursor']).toContain(by);
    }
  });

  it('a revocation without waiting returns 202 with the pending verifiers; the receipt is stored, and a repeat returns it', async () => {
    const [near, far] = [await gateway(w.service), await gateway(second)];
    const { id } = await issue(admin);
    far.cutOff();
    const first = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, {
      body: {},
      headers: { prefer: 'wait=0' },
    });
    expect(first.status).toBe(202);
    expect(first.body).toMatchObject({ effective: false, receipt: null });
    expect(first.body.pending.map((p) => p.id)).toContain(far.verifier.id);
    const stored = await waitFor(async () => {
      const [row] = await w.database.query('SELECT receipt FROM tokens WHERE id = $1', [id]);
      return row!['receipt'] as Receipt | null;
    });
    const by = Object.fromEntries(stored.verifiers.map((v) => [v.id, v.by]));
    expect(by).toMatchObject({ [near.verifier.id!]: 'ack', [far.verifier.id!]: 'lease' });
    const repeated = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
    expect(repeated.status).toBe(200);
    expect(repeated.body).toMatchObject({ effective: true, receipt: stored });
  });

  it('a revocation repeated before it is effective waits again', async () => {
    const near = await gateway(w.service);
    const far = await gateway(second);
    const { id, secret } = await issue(admin);
    for (const each of [near, far]) await allowed(each, secret);
    far.cutOff();
    await admin.call(`POST /v1/tokens/${id}/revoke`, { body: {}, headers: { prefer: 'wait=0' } });
    const repeated = await w
      .as({ cookie: admin.cookie! }, second)
      .call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
    for (const each of [near, far]) expect(await allowed(each, secret)).toBe(false);
    expect(repeated.body).toMatchObject({ effective: true });
  });

  it('disabling a person or closing a project writes one invalidation for all of its tokens', async () => {
    const gateways = [await gateway(w.service), await gateway(second)];
    const person = await w.member();
    const at = await project(person);
    const tokens = [
      ...(await Promise.all([1, 2, 3].map(() => issue(person)))),
      ...(await Promise.all([1, 2].map(() => issue(person, { kind: 'prj', projectId: at, scopes: [] })))),
    ];
    for (const { secret } of tokens) for (const each of gateways) expect(await allowed(each, secret)).toBe(true);
    const before = gateways.map(({ verifier }) => verifier.counters.invalidationsApplied);
    const closed = await person.call<Revoked>(`DELETE /v1/projects/${at}`);
    expect(closed.body).toMatchObject({ effective: true });
    for (const { secret } of tokens.slice(3))
      for (const each of gateways) expect(await allowed(each, secret)).toBe(false);
    const disabled = await admin.call<Revoked>(`PATCH /v1/users/${person.user.id}`, { body: { disabled: true } });
    expect(disabled.body).toMatchObject({ effective: true });
    for (const { secret } of tokens) for (const each of gateways) expect(await allowed(each, secret)).toBe(false);
    expect(gateways.map(({ verifier }, i) => verifier.counters.invalidationsApplied - before[i]!)).toEqual([2, 2]);
  });

  it('a revocation over HTTP does not wait for a gateway that has released its lease', async () => {
    const { verifier } = await gateway(w.service);
    await verifier.stop();
    const { id } = await issue(admin);
    const { body } = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
    expect(body.receipt!.verifiers.map((v) => v.id)).not.toContain(verifier.id);
  });
});

describe('leases over gRPC', () => {
  const request = (over = {}) => ({
    verifierId: '',
    name: 'test',
    cursor: null,
    claim: newClaim(),
    version: '1',
    ...over,
  });
  const verifying = (person = admin, body = {}) => issue(person, { scopes: ['tokens:verify'], ...body });

  it('holders of tokens:verify get leases over gRPC, each caller with its own id', async () => {
    const [one, other] = [await verifying(), await verifying()];
    const mine = request();
    const response = await caller(w.service, bearer(one.secret)).renew(mine);
    expect(response).toMatchObject({ leaseMs: LEASE_MS, reset: true, invalidations: [], caller: `token:${one.id}` });
    expect([response.ackKey.length, response.usageKey.length, response.feedKey.length]).toEqual([32, 32, 0]);
    expect(response.feedKeys.map((key) => key.length)).toEqual([32]);
    const { verifierId } = response;
    expect((await caller(second, bearer(other.secret)).renew(mine)).verifierId).not.toBe(verifierId);
    expect(await caller(second, bearer(other.secret)).release({ verifierId, claim: mine.claim })).toEqual({
      released: false,
    });
    // Another process with the same credential has the id, but not the claim.
    for (const claim of ['', newClaim()])
      expect(await caller(second, bearer(one.secret)).release({ verifierId, claim })).toEqual({ released: false });
    expect(await caller(second, bearer(one.secret)).release({ verifierId, claim: mine.claim })).toEqual({
      released: true,
    });
    await expect(caller(w.service, bearer(one.secret)).renew(mine)).rejects.toMatchObject({
      code: status.FAILED_PRECONDITION,
    });
  });

  it('a malformed renewal or release over gRPC is rejected by name', async () => {
    await expect(caller(w.service).renew(request({ claim: 'x' }))).rejects.toMatchObject({
      code: status.INVALID_ARGUMENT,
      details: expect.stringContaining('claim'),
    });
    await expect(caller(w.service).release({ verifierId: 'x', claim: newClaim() })).rejects.toMatchObject({
      code: status.INVALID_ARGUMENT,
    });
  });

  it('a token without tokens:verify gets no lease', async () => {
    const { secret } = await issue(admin, { scopes: ['tokens:read'] });
    await expect(caller(w.service, bearer(secret)).renew(request())).rejects.toMatchObject({
      code: status.PERMISSION_DENIED,
    });
  });

  it('leases of derived tokens count for the owner of their root ancestor', async () => {
    const person = await w.member('Owner of verifiers', 'admin');
    const root = await verifying(person, { scopes: ['tokens:verify', 'tokens:write'] });
    const children = await Promise.all([1, 2].map(() => verifying(w.bearer(root.secret))));
    const callers = [root, ...children].map(({ secret }) => caller(w.service, bearer(secret)));
    for (const one of callers) await one.renew(request());
    const holders = await w.database.query(
      `SELECT DISTINCT holder FROM leases WHERE holder LIKE 'user:%' AND ended_at IS NULL AND caller_token = ANY ($1)`,
      [[root, ...children].map(({ id }) => id)],
    );
    expect(holders).toEqual([{ holder: `user:${person.user.id}` }]);
    await w.database.query(
      `INSERT INTO lease_holders (holder, suspended_until) VALUES ($1, now() + interval '1 minute')`,
      [`user:${person.user.id}`],
    );
    for (const one of callers)
      await expect(one.renew(request())).rejects.toMatchObject({
        code: status.RESOURCE_EXHAUSTED,
        details: expect.stringMatching(/^suspended: /),
      });
  });

  it('a lease written by a replica of the previous version is listed as a third party', async () => {
    const holder = await verifying();
    const id = newId();
    await w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
       VALUES ($1, 'gateway-1', $2, pg_current_xact_id(), 60000, now())`,
      [id, `token:${holder.id}`],
    );
    try {
      const { items } = (await admin.call<{ items: VerifierItem[] }>('/v1/verifiers')).body;
      expect(items.find((item) => item.id === id)?.caller).toEqual({ type: 'token', id: holder.id, name: holder.name });
    } finally {
      await w.database.query('DELETE FROM leases WHERE verifier_id = $1', [id]);
    }
  });

  it('the lease of a revoked token is not renewed, and its lookups are rejected', async () => {
    const holder = await verifying();
    const theirs = await gateway(w.service, bearer(holder.secret));
    const { id } = theirs.verifier;
    await admin.call(`POST /v1/tokens/${holder.id}/revoke`, { body: {} });
    // On a slow machine the row may have lapsed and be gone.
    const rows = await w.database.query('SELECT FROM leases WHERE verifier_id = $1 AND ended_at IS NULL', [id]);
    expect(rows).toEqual([]);
    const { secret } = await issue(admin);
    await waitFor(() => !theirs.verifier.state().leaseHeld);
    expect(await theirs.verifier.verify(secret, { scopes: [] })).toMatchObject({ reason: 'unavailable' });
  });

  it('a lookup gives third parties a usage ticket for them and the token, and gateways none', async () => {
    const [holder, token] = [await verifying(), await issue(admin)];
    const hash = hashSecret(token.secret);
    expect((await caller(w.service).lookup({ hash })).usageTicket).toHaveLength(0);
    const theirs = await caller(w.service, bearer(holder.secret)).lookup({ hash });
    const expected = usageTicket(Buffer.from(USAGE_SECRET), { caller: `token:${holder.id}`, tokenId: token.id });
    expect(Buffer.from(theirs.usageTicket!)).toEqual(expected);
    const unknown = await caller(w.service, bearer(holder.secret)).lookup({ hash: hashSecret('unknown secret') });
    expect(unknown.usageTicket).toHaveLength(0);
  });
});

describe('verifiers, for administrators', () => {
  const list = async (person = admin) => (await person.call<{ items: VerifierItem[] }>('/v1/verifiers')).body.items;

  it('administrators can list verifiers with their owners, start and confirmations', async () => {
    const holder = await issue(admin, { scopes: ['tokens:verify'], name: 'their service' });
    const [own, theirs] = [await gateway(w.service), await gateway(second, bearer(holder.secret))];
    await admin.call(`POST /v1/tokens/${(await issue(admin)).id}/revoke`, { body: {} });
    // A cursor is known from the second renewal on.
    const isWhole = (item: VerifierItem) => item.lastConfirmationMs !== null && item.cursorLag !== null;
    const items = await waitFor(async () => {
      const found = (await list()).filter(({ id }) => id === own.verifier.id || id === theirs.verifier.id);
      return found.length === 2 && found.every(isWhole) ? found : null;
    });
    const byId = Object.fromEntries(items.map((item) => [item.id, item]));
    expect(byId[own.verifier.id!]).toMatchObject({ name: 'gateway', caller: { type: 'first_party' }, ended: false });
    // A third party has no routes, whatever it says.
    expect([own, theirs].map(({ verifier }) => byId[verifier.id!]!.routesHash)).toEqual(['0123456789abcdef', null]);
    expect(byId[own.verifier.id!]!.caller).toEqual({ type: 'first_party' });
    expect(byId[theirs.verifier.id!]!.caller).toEqual({ type: 'token', id: holder.id, name: 'their service' });
    for (const item of items) {
      expect(item.leaseEndsInMs).toBeGreaterThan(0);
      expect(item.leaseEndsInMs).toBeLessThanOrEqual(LEASE_MS * 1.2);
      expect(item.cursorLag).toBeGreaterThanOrEqual(0);
      expect(Date.parse(item.since)).toBeLessThanOrEqual(Date.now() + 1_000);
    }
  });

  it('administrators can end a verifier: its next renewal gets another id, and the audit log records who ended it', async () => {
    const one = await gateway(w.service);
    const id = one.verifier.id!;
    const ended = await admin.call<VerifierItem>(`POST /v1/verifiers/${id}/end`);
    expect(ended.status).toBe(200);
    expect(ended.body).toMatchObject({ id, ended: true });
    expect((await admin.call(`POST /v1/verifiers/${id}/end`)).status).toBe(200);
    await waitFor(() => one.verifier.id !== undefined && one.verifier.id !== id);
    const { body } = await admin.call<{ items: { subject: { id: string } }[] }>('/v1/audit?action=verifier.ended');
    expect(body.items.filter(({ subject }) => subject.id === id)).toHaveLength(1);
    expect((await admin.call('POST /v1/verifiers/01890000-0000-7000-8000-000000000000/end')).status).toBe(404);
  });

  it('a revocation waits for an ended verifier like for any other, until its lease has lapsed', async () => {
    const token = await issue(admin);
    const one = await gateway(w.service);
    const id = one.verifier.id!;
    expect(await allowed(one, token.secret)).toBe(true);
    one.cutOff();
    expect((await admin.call(`POST /v1/verifiers/${id}/end`)).status).toBe(200);
    const { body } = await admin.call<Revoked>(`POST /v1/tokens/${token.id}/revoke`, { body: {} });
    expect(body.receipt!.verifiers).toContainEqual(expect.objectContaining({ id, by: 'lease' }));
    expect(await allowed(one, token.secret)).toBe(false);
    await waitFor(async () => (await list()).every((item) => item.id !== id));
  });

  it('listing verifiers requires system:read, and ending them system:write', async () => {
    const one = await gateway(w.service);
    const [reading, writing] = await Promise.all(
      ['system:read', 'system:write'].map((scope) => issue(admin, { scopes: [scope] })),
    );
    const end = `POST /v1/verifiers/${one.verifier.id}/end`;
    const member = await w.member();
    expect((await w.bearer(reading!.secret).call('/v1/verifiers')).status).toBe(200);
    expect((await w.bearer(reading!.secret).call(end)).status).toBe(403);
    expect((await w.bearer(writing!.secret).call('/v1/verifiers')).status).toBe(403);
    expect((await member.call('/v1/verifiers')).status).toBe(403);
    expect((await member.call(end)).status).toBe(403);
    expect((await w.bearer(writing!.secret).call(end)).status).toBe(200);
  });

  it('receipts and pending lists name the callers of verifiers to administrators; others see only whether they are first-party', async () => {
    const holder = await issue(admin, { scopes: ['tokens:verify'], name: 'their service' });
    const theirs = await gateway(w.service, bearer(holder.secret));
    const member = await w.member();
    const ofId = (all: { id: string; caller?: object }[]) => all.find(({ id }) => id === theirs.verifier.id)?.caller;
    const whole = { type: 'token', id: holder.id, name: 'their service' };
    for (const [person, seen] of [
      [admin, whole],
      [member, { type: 'token' }],
    ] as const) {
      const { id } = await issue(person);
      const { body } = await person.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
      expect(ofId(body.receipt!.verifiers)).toEqual(seen);
      const read = await waitFor(async () => {
        const { receipt } = (await person.call<{ receipt: Receipt | null }>(`/v1/tokens/${id}`)).body;
        return receipt;
      });
      expect(ofId(read.verifiers)).toEqual(seen);
      const again = await person.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
      expect(ofId(again.body.receipt!.verifiers)).toEqual(seen);
      const { body: record } = await admin.call<{ receipt: Receipt }>(`/v1/tokens/${id}`);
      expect(ofId(record.receipt.verifiers)).toEqual(whole);
    }
    theirs.cutOff();
    for (const [person, seen] of [
      [admin, whole],
      [member, { type: 'token' }],
    ] as const) {
      const { id } = await issue(person);
      const { body } = await person.call<Revoked>(`POST /v1/tokens/${id}/revoke`, {
        body: {},
        headers: { prefer: 'wait=0' },
      });
      expect(ofId(body.pending)).toEqual(seen);
    }
  });
});

describe('metrics', () => {
  it('metrics count how revocations were confirmed', async () => {
    await gateway(w.service);
    const { id } = await issue(admin);
    await admin.call(`POST /v1/tokens/${id}/revoke`, { body: {} });
    const text = await (await fetch(`${w.service.opsUrl}/metrics`)).text();
    expect(text).toMatch(
      /latchkey_confirmations_by_total\{by="ack",caller="first_party",service="token-service"\} [1-9]/,
    );
    expect(text).toMatch(
      /latchkey_leases_refused_total\{reason="suspended",caller="token",service="token-service"\} \d/,
    );
    expect(text).toMatch(/latchkey_acknowledgements_dropped_total\{reason="malformed",service="token-service"\} 0/);
    expect(text).toMatch(/latchkey_confirmation_seconds_count\{service="token-service"\} [1-9]/);
    expect(text).toMatch(/latchkey_lease_events_total\{event="renewed",service="token-service"\} [1-9]/);
  });
});
