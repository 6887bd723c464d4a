import { status } from '@grpc/grpc-js';
import { REDIS, type Receipt, type TokensMethods } from '@latchkey/contracts';
import {
  bearer,
  type Caller,
  createLogger,
  createRedis,
  firstParty,
  hear,
  newId,
  systemClock,
  tokensCaller,
} from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Verifier } from '@latchkey/verifier';
import type { TokenService } from '../../src/app.js';
import { GATEWAY_RPC_SECRET, issue, type Person, project, type World, world } from '../harness.js';

let w: World;
let second: TokenService;
let admin: Person;
const closing: (() => Promise<void>)[] = [];

function caller(service: TokenService, authorization = firstParty(GATEWAY_RPC_SECRET)): Caller<TokensMethods> {
  const made = tokensCaller({ address: service.rpcAddress, authorization, timeoutMs: 5_000 });
  closing.push(async () => made.close());
  return made;
}

/** A verifier as a gateway has it: gRPC to one replica, Redis for the feed. */
async function gateway(service: TokenService): Promise<{ verifier: Verifier; cutOff(): void }> {
  const logger = createLogger('test', 'fatal');
  const [publisher, subscriber] = [1, 2].map(() => createRedis(w.redis.url, 'test', logger));
  const rpc = caller(service);
  let cut = false;
  const unlessCut = async <T>(call: () => Promise<T>): Promise<T> => {
    if (cut) throw new Error('cut off');
    return call();
  };
  const verifier = new Verifier({
    id: newId(),
    name: 'gateway',
    clock: systemClock,
    source: {
      lookup: (hash) => unlessCut(() => rpc.lookup({ hash })),
      renew: (request) => unlessCut(() => rpc.renew(request)),
      release: async (verifierId) => void (await unlessCut(() => rpc.release({ verifierId }))),
    },
    feed: {
      subscribe: (onMessage) =>
        hear(subscriber!, REDIS.invalidations, (text) => {
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

beforeAll(async () => {
  w = await world();
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
  it('is refused by the gateways of every replica once it has returned effective', async () => {
    const gateways = [await gateway(w.service), await gateway(second)];
    for (let i = 0; i < 5; i++) {
      const { id, secret } = await issue(admin);
      for (const each of gateways) expect(await allowed(each, secret)).toBe(true);
      const answer = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
      for (const each of gateways) expect(await allowed(each, secret)).toBe(false);
      expect(answer.status).toBe(200);
      expect(answer.body).toMatchObject({ effective: true, pending: [] });
      expect(answer.body.receipt!.verifiers.map(({ by }) => by)).toEqual(['ack', 'ack']);
    }
  });

  it('that is not waited for answers 202 with who is pending; the receipt is stored, and a repeat answers with it', async () => {
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
    expect(by).toMatchObject({ [near.verifier.id]: 'ack', [far.verifier.id]: 'lease' });
    const repeated = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
    expect(repeated.status).toBe(200);
    expect(repeated.body).toMatchObject({ effective: true, receipt: stored });
  });

  it('repeated before it was effective waits again', async () => {
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

  it('of all that a person or a project had is one invalidation each', async () => {
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

  it('waits for no gateway that has said good-bye', async () => {
    const { verifier } = await gateway(w.service);
    await verifier.stop();
    const { id } = await issue(admin);
    const { body } = await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} });
    expect(body.receipt!.verifiers.map((v) => v.id)).not.toContain(verifier.id);
  });
});

describe('the gRPC door of leases', () => {
  const request = () => ({ verifierId: newId(), name: 'test', cursor: null });

  it('grants leases to holders of tokens:verify, and a verifier id belongs to whoever renewed it first', async () => {
    const [one, other] = [
      await issue(admin, { scopes: ['tokens:verify'] }),
      await issue(admin, { scopes: ['tokens:verify'] }),
    ];
    const mine = request();
    const answer = await caller(w.service, bearer(one.secret)).renew(mine);
    expect(answer).toMatchObject({ leaseMs: 1_000, reset: true, invalidations: [] });
    expect(answer.ackKey).toHaveLength(32);
    await expect(caller(second, bearer(other.secret)).renew(mine)).rejects.toMatchObject({
      code: status.PERMISSION_DENIED,
    });
    expect(await caller(second, bearer(other.secret)).release(mine)).toEqual({ released: false });
    expect(await caller(second, bearer(one.secret)).release(mine)).toEqual({ released: true });
  });

  it('refuses what is malformed by name', async () => {
    await expect(caller(w.service).renew({ ...request(), verifierId: 'x' })).rejects.toMatchObject({
      code: status.INVALID_ARGUMENT,
      details: expect.stringContaining('verifierId'),
    });
    await expect(caller(w.service).release({ verifierId: 'x' })).rejects.toMatchObject({
      code: status.INVALID_ARGUMENT,
    });
  });

  it('gives nothing to a caller without the scope', async () => {
    const { secret } = await issue(admin, { scopes: ['tokens:read'] });
    await expect(caller(w.service, bearer(secret)).renew(request())).rejects.toMatchObject({
      code: status.PERMISSION_DENIED,
    });
  });
});

describe('metrics', () => {
  it('tell how revocations were confirmed', async () => {
    await gateway(w.service);
    const { id } = await issue(admin);
    await admin.call(`POST /v1/tokens/${id}/revoke`, { body: {} });
    const text = await (await fetch(`${w.service.opsUrl}/metrics`)).text();
    expect(text).toMatch(/latchkey_confirmations_by_total\{by="ack",service="token-service"\} [1-9]/);
    expect(text).toMatch(/latchkey_confirmation_seconds_count\{service="token-service"\} [1-9]/);
    expect(text).toMatch(/latchkey_lease_events_total\{event="renewed",service="token-service"\} [1-9]/);
  });
});
