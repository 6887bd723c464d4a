import { status } from '@grpc/grpc-js';
import { jest } from '@jest/globals';
import type { Effect, TokensMethods, VerifierItem } from '@latchkey/contracts';
import { REDIS, readUsageBatch } from '@latchkey/contracts';
import { bearer, type Caller, firstParty, tokensCaller } from '@latchkey/runtime';
import { faultyLink, waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import type { TokenService } from '../src/app.js';
import { SnapshotService } from '../src/verification/index.js';
import { asRole } from './database.js';
import { GATEWAY_RPC_SECRET, issue, type Person, project, USAGE_SECRET, type World, world } from './harness.js';

const REQUEST = { scopes: [], project: '', ip: '', route: 'here', userAgent: '' };
const BUSY = 120;
const WORKERS = 8;

let w: World;
let admin: Person;
let own: Caller<TokensMethods>;
const callers: { close(): void }[] = [];
const callerAt = (service: TokenService, authorization = firstParty(GATEWAY_RPC_SECRET)) => {
  const caller = tokensCaller({ address: service.rpcAddress, authorization, timeoutMs: 20_000 });
  callers.push(caller);
  return caller;
};
const verifiers = async () => (await admin.call<{ items: VerifierItem[] }>('/v1/verifiers')).body.items;
/** Checks that a token-service has answered from memory. */
async function recalledBy(service: TokenService): Promise<number> {
  const text = await (await fetch(`${service.opsUrl}/metrics`)).text();
  return Number(/latchkey_verify_checks_total\{[^}]*from="memory"[^}]*\} (\d+)/.exec(text)?.[1]);
}
/** Calls until the token-service answers from memory. */
async function keepBusy(service: TokenService, caller: Caller<TokensMethods>, token: string): Promise<void> {
  await waitFor(
    async () => {
      const before = await recalledBy(service);
      await Promise.all(Array.from({ length: BUSY }, () => caller.verify({ ...REQUEST, token })));
      return (await recalledBy(service)) >= before + BUSY;
    },
    { timeoutMs: 30_000, what: 'checks from memory' },
  );
}

/** Verifies without a pause, several at once, and keeps when each call that was allowed had begun. */
function verifying(calls: Caller<TokensMethods>, token: string) {
  const allowedBegins: number[] = [];
  const others = new Set<unknown>();
  let [isOver, count] = [false, 0];
  const worker = async () => {
    while (!isOver) {
      const begun = performance.now();
      const response = await calls.verify({ ...REQUEST, token }).catch((error: unknown) => error);
      count++;
      if ((response as { allowed?: boolean }).allowed) allowedBegins.push(begun);
      else others.add((response as { denial?: string }).denial ?? (response as { code?: number }).code);
    }
  };
  const running = Promise.all(Array.from({ length: WORKERS }, worker));
  const more = async () => {
    const enough = count + 4 * WORKERS;
    await waitFor(() => count >= enough, { timeoutMs: 30_000, what: 'more calls' });
  };
  const stop = async () => {
    isOver = true;
    await running;
  };
  return { allowedBegins, others, more, stop };
}

beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
  own = callerAt(w.service);
});
afterAll(async () => {
  for (const caller of callers) caller.close();
  await w.close();
});

test('Verify responds from memory as from the database: principals, denials, and each use counted once', async () => {
  const person = await w.member();
  const at = await project(person);
  const personal = await issue(person, { scopes: ['demo:read'], allowedIps: ['10.0.0.0/8'], expiresInSeconds: 3600 });
  const ofProject = await issue(person, { scopes: ['demo:read'], kind: 'prj', projectId: at });
  const requests = [
    { ...REQUEST, token: personal.secret, ip: '10.1.2.3', scopes: ['demo:read'], project: at, userAgent: 'one/1' },
    { ...REQUEST, token: personal.secret, ip: '11.1.2.3' },
    { ...REQUEST, token: personal.secret, scopes: ['demo:write'] },
    { ...REQUEST, token: ofProject.secret, project: at },
    { ...REQUEST, token: ofProject.secret, project: '019a0000-0000-7000-8000-000000000000' },
    { ...REQUEST, token: 'rubbish' },
    { ...REQUEST, token: `${personal.secret.slice(0, -1)}${personal.secret.endsWith('0') ? '1' : '0'}` },
  ];
  const all = async () => Promise.all(requests.map((request) => own.verify(request)));
  const fromDatabase = await all();
  expect(await verifiers()).toEqual([]);
  await keepBusy(w.service, own, personal.secret);
  expect(await verifiers()).toMatchObject([{ caller: { type: 'first_party' } }]);
  await all();
  const before = await recalledBy(w.service);
  const fromMemory = await all();
  expect(await recalledBy(w.service)).toBeGreaterThanOrEqual(before + requests.length - 1);
  const withoutIds = (responses: typeof fromMemory) => responses.map(({ requestId, ...rest }) => [rest, !!requestId]);
  expect(withoutIds(fromMemory)).toEqual(withoutIds(fromDatabase));

  const redis = new Redis(w.redis.url);
  try {
    const counted = async () => {
      const entries = await redis.xrange(REDIS.usage, '-', '+');
      const lines = entries.flatMap(([, fields]) => {
        const event = Object.fromEntries(fields.flatMap((name, i) => (i % 2 ? [] : [[name, fields[i + 1]]])));
        const read = readUsageBatch([Buffer.from(USAGE_SECRET)], event);
        return typeof read === 'string' ? [] : read.batch.lines;
      });
      const ofUserAgent = lines.filter((line) => line.tokenId === personal.id && line.userAgent === 'one/1');
      return ofUserAgent.reduce((sum, line) => sum + line.count, 0);
    };
    await waitFor(async () => (await counted()) === 3, { timeoutMs: 10_000, what: 'the uses' });
  } finally {
    redis.disconnect();
  }
});

test('no Verify that begins after a revocation was effective accepts the token, whichever replica revoked it', async () => {
  const other = await w.another({ ADMIN_EMAIL: '', ADMIN_PASSWORD: '' });
  const elsewhere = w.as({ cookie: admin.cookie! }, other);
  for (let i = 0; i < 6; i++) {
    const token = await issue(admin, { scopes: ['demo:read'] });
    await keepBusy(w.service, own, token.secret);
    const calls = verifying(own, token.secret);
    await calls.more();
    const revoker = i % 2 ? elsewhere : admin;
    const { body } = await revoker.call<Effect>(`POST /v1/tokens/${token.id}/revoke`);
    const effectiveAt = performance.now();
    await calls.more();
    await calls.stop();
    expect(body).toMatchObject({ effective: true, receipt: { verifiers: [{ caller: { type: 'first_party' } }] } });
    expect(calls.allowedBegins.length).toBeGreaterThan(0);
    expect(calls.allowedBegins.filter((begun) => begun > effectiveAt)).toEqual([]);
    expect([...calls.others]).toEqual(['revoked']);
  }
});

test('a caller whose token was revoked is refused in every call that begins after that was effective', async () => {
  const verifyingToken = await issue(admin, { scopes: ['tokens:verify'] });
  const token = await issue(admin);
  const third = callerAt(w.service, bearer(verifyingToken.secret));
  await keepBusy(w.service, third, token.secret);
  const readings = jest.spyOn(SnapshotService.prototype, 'byHash');
  await Promise.all(Array.from({ length: 20 }, () => third.verify({ ...REQUEST, token: token.secret })));
  expect(readings).not.toHaveBeenCalled();
  readings.mockRestore();
  const calls = verifying(third, token.secret);
  await calls.more();
  const { body } = await admin.call<Effect>(`POST /v1/tokens/${verifyingToken.id}/revoke`);
  const effectiveAt = performance.now();
  await calls.more();
  await calls.stop();
  expect(body.effective).toBe(true);
  expect(calls.allowedBegins.filter((begun) => begun > effectiveAt)).toEqual([]);
  expect([...calls.others]).toEqual([status.UNAUTHENTICATED]);
});

test('a token without tokens:verify, and the secret of jobs, are refused while Verify responds from memory', async () => {
  const token = await issue(admin);
  await keepBusy(w.service, own, token.secret);
  for (const authorization of [bearer(token.secret), firstParty(w.env['JOBS_RPC_SECRET']!)]) {
    const caller = callerAt(w.service, authorization);
    for (let i = 0; i < 3; i++)
      await expect(caller.verify({ ...REQUEST, token: token.secret })).rejects.toMatchObject({
        code: status.PERMISSION_DENIED,
      });
  }
});

test('a rate limit counts every use of a token that is in memory', async () => {
  const plain = await issue(admin);
  await keepBusy(w.service, own, plain.secret);
  const limited = await issue(admin, { rateLimit: { limit: 5, windowSeconds: 3600 } });
  const responses = await Promise.all(
    Array.from({ length: 12 }, () => own.verify({ ...REQUEST, token: limited.secret })),
  );
  expect(responses.filter(({ allowed }) => allowed)).toHaveLength(5);
  expect(responses.filter(({ denial }) => denial === 'rate_limited')).toHaveLength(7);
});

test('while Redis is unavailable a revocation becomes effective, and Verify denies the token after it', async () => {
  const token = await issue(admin);
  await keepBusy(w.service, own, token.secret);
  await w.redis.kill();
  try {
    const { body } = await admin.call<Effect>(`POST /v1/tokens/${token.id}/revoke`);
    expect(body.effective).toBe(true);
    expect(await own.verify({ ...REQUEST, token: token.secret })).toMatchObject({ denial: 'revoked' });
  } finally {
    await w.redis.restart();
  }
});

test('without PostgreSQL Verify responds from memory until its lease has expired, then with UNAVAILABLE, never a denial', async () => {
  const link = await faultyLink(w.database.url);
  const service = await w.another({
    ADMIN_EMAIL: '',
    ADMIN_PASSWORD: '',
    DATABASE_URL: link.url(asRole(w.database.url, 'latchkey_service')),
  });
  try {
    const token = await issue(admin);
    const caller = callerAt(service);
    await keepBusy(service, caller, token.secret);
    const calls = verifying(caller, token.secret);
    await calls.more();
    link.cut();
    const cutAt = performance.now();
    await waitFor(() => calls.others.size > 0, { timeoutMs: 30_000, what: 'the end of the lease' });
    await calls.more();
    await calls.stop();
    expect([...calls.others]).toEqual([status.UNAVAILABLE]);
    expect(calls.allowedBegins.some((begun) => begun > cutAt)).toBe(true);
    link.heal();
    await waitFor(async () => (await caller.verify({ ...REQUEST, token: token.secret }).catch(() => null))?.allowed, {
      timeoutMs: 20_000,
      what: 'being allowed again',
    });
  } finally {
    link.heal();
    await service.stop();
    await link.close();
  }
});

test('a token-service that stops releases its lease, so that no revocation waits for it', async () => {
  const service = await w.another({ ADMIN_EMAIL: '', ADMIN_PASSWORD: '' });
  const token = await issue(admin);
  const before = (await verifiers()).map(({ id }) => id);
  await keepBusy(service, callerAt(service), token.secret);
  expect((await verifiers()).filter(({ id }) => !before.includes(id))).toHaveLength(1);
  await service.stop();
  expect((await verifiers()).filter(({ id }) => !before.includes(id))).toEqual([]);
});
