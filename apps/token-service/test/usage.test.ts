import { status } from '@grpc/grpc-js';
import { REDIS, readUsageBatch, type UsageBatch } from '@latchkey/contracts';
import { bearer, firstParty, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { GATEWAY_RPC_SECRET, issue, USAGE_SECRET, type World, world } from './harness.js';

let w: World;
let redis: Redis;
beforeAll(async () => {
  w = await world();
  redis = new Redis(w.redis.url);
});
afterAll(async () => {
  redis.disconnect();
  await w.close();
});

/** All batches sent so far, as jobs reads them. */
async function sent(): Promise<UsageBatch[]> {
  const entries = await redis.xrange(REDIS.usage, '-', '+');
  return entries.map(([, fields]) => {
    const event = Object.fromEntries(fields.flatMap((name, i) => (i % 2 ? [] : [[name, fields[i + 1]]])));
    const read = readUsageBatch([Buffer.from(USAGE_SECRET)], event);
    if (typeof read === 'string') throw new Error(`a usage batch is ${read}`);
    return read.batch;
  });
}

test('verifications over every API are counted under its route, in batches that jobs accepts', async () => {
  const person = await w.member();
  const token = await issue(person, { scopes: ['tokens:read'] });
  const admin = await w.signIn();
  const caller = tokensCaller({
    address: w.service.rpcAddress,
    authorization: firstParty(GATEWAY_RPC_SECRET),
    timeoutMs: 10_000,
  });
  const request = {
    token: token.secret,
    scopes: [],
    project: '',
    ip: '203.0.113.5',
    route: 'billing',
    userAgent: `biller/1 ${token.secret}`,
  };
  try {
    for (let i = 0; i < 3; i++) await w.bearer(token.secret).call('/v1/tokens/self');
    await caller.verify(request);
    await caller.verify({ ...request, scopes: ['demo:read'] });
    await admin.call('POST /oauth2/introspect', {
      raw: new URLSearchParams({ token: token.secret }).toString(),
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    });
  } finally {
    caller.close();
  }
  const counted = async () => {
    const lines = (await sent()).flatMap((batch) => batch.lines).filter((line) => line.tokenId === token.id);
    const totals: Record<string, number> = {};
    for (const { route, status, count } of lines)
      totals[`${route} ${status}`] = (totals[`${route} ${status}`] ?? 0) + count;
    return totals;
  };
  const all = {
    'management allowed': 3,
    'billing allowed': 1,
    'billing insufficient_scope': 1,
    'introspection allowed': 1,
  };
  await waitFor(async () => Object.keys(await counted()).length >= 4, { timeoutMs: 10_000, what: 'the usage batches' });
  expect(await counted()).toEqual(all);
  const sequences = (await sent()).map(({ sequence }) => sequence);
  expect(new Set(sequences).size).toBe(sequences.length);
  const stream = JSON.stringify(await sent());
  expect(stream).not.toContain(token.secret);
});

test('whatever a caller of Verify says of a use is counted, in batches that jobs accepts', async () => {
  const person = await w.member();
  const token = await issue(person);
  const caller = tokensCaller({ address: w.service.rpcAddress, authorization: firstParty(GATEWAY_RPC_SECRET) });
  const hostile = ['\0', '\u0001'.repeat(500), `https://example.org/${token.secret}/${'x'.repeat(10_000)}`];
  for (const text of hostile) {
    const where = { scopes: [], project: '', ip: text, route: text, userAgent: text };
    expect(await caller.verify({ ...where, token: token.secret })).toMatchObject({ allowed: true });
    expect(await caller.verify({ ...where, token: 'rubbish' })).toMatchObject({ allowed: false });
  }
  caller.close();
  const counted = async () =>
    (await sent()).flatMap(({ lines }) => lines).filter(({ tokenId }) => tokenId === token.id).length;
  await waitFor(async () => (await counted()) === hostile.length, { timeoutMs: 10_000, what: 'the usage batches' });
  const stored = JSON.stringify(await sent());
  expect(stored).not.toContain(token.secret);
  expect(stored).not.toMatch(/\\u000/);
});

test('usage batches contain each denial with its requestId', async () => {
  const person = await w.member();
  const token = await issue(person, { scopes: ['tokens:read'] });
  await person.call(`DELETE /v1/tokens/${token.id}`);
  const [revoked, unknown] = [
    await w.bearer(token.secret).call('/v1/tokens'),
    await w.bearer('rubbish').call('/v1/tokens'),
  ];
  const narrow = await issue(person, { scopes: ['tokens:read'] });
  const missing = await w.bearer(narrow.secret).call('POST /v1/tokens', { body: { name: 'x' } });
  const caller = tokensCaller({ address: w.service.rpcAddress, authorization: firstParty(GATEWAY_RPC_SECRET) });
  const request = { scopes: [], project: '', ip: '203.0.113.5', route: 'billing', userAgent: '' };
  const verified = await caller.verify({ ...request, token: token.secret });
  caller.close();
  const denials = async () => (await sent()).flatMap((batch) => batch.denials);
  const responses = [revoked, unknown, missing].map(({ headers }) => headers.get('x-request-id'));
  const areSent = async () => {
    const sentIds = new Set<string | null>((await denials()).map(({ requestId }) => requestId));
    return [...responses, verified.requestId].every((id) => sentIds.has(id));
  };
  await waitFor(areSent, { timeoutMs: 10_000, what: 'the denials' });
  const reasonOf = async (response: { headers: Headers }) =>
    (await denials()).find((denial) => denial.requestId === response.headers.get('x-request-id'));
  expect(await reasonOf(revoked)).toMatchObject({ reason: 'revoked', tokenId: token.id, method: 'GET' });
  expect(await reasonOf(unknown)).toMatchObject({ reason: 'malformed', tokenId: null });
  expect((await denials()).find(({ requestId }) => requestId === verified.requestId)).toMatchObject({
    reason: 'revoked',
    tokenId: token.id,
    route: 'billing',
    ip: '203.0.113.5',
  });
  expect(await reasonOf(missing)).toMatchObject({ reason: 'insufficient_scope', tokenId: narrow.id, method: 'POST' });
});

test("calls over gRPC count as uses of the caller's token, and against its rate limit", async () => {
  const limited = await issue(await w.signIn(), {
    scopes: ['tokens:verify'],
    rateLimit: { limit: 2, windowSeconds: 3_600 },
  });
  const caller = tokensCaller({ address: w.service.rpcAddress, authorization: bearer(limited.secret) });
  const verify = () => caller.verify({ token: 'x', scopes: [], project: '', ip: '', route: '', userAgent: '' });
  try {
    for (let i = 0; i < 2; i++) expect((await verify()).denial).toBe('malformed');
    await expect(verify()).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  } finally {
    caller.close();
  }
  const counted = async (outcome: string) =>
    (await sent())
      .flatMap(({ lines }) => lines)
      .filter(({ tokenId, route, status: verdict }) => tokenId === limited.id && route === 'rpc' && verdict === outcome)
      .reduce((sum, { count }) => sum + count, 0);
  await waitFor(async () => (await counted('allowed')) === 2 && (await counted('rate_limited')) === 1);
});

test('usage counted while Redis was unavailable, or stored only in a killed Redis, is sent when it is back', async () => {
  const person = await w.member();
  const token = await issue(person, { scopes: ['tokens:read'] });
  const use = () => w.bearer(token.secret).call('/v1/tokens/self');
  const allowed = async () =>
    (await sent())
      .flatMap((batch) => batch.lines)
      .filter((line) => line.tokenId === token.id && line.status === 'allowed')
      .reduce((sum, { count }) => sum + count, 0);
  for (let i = 0; i < 3; i++) expect((await use()).status).toBe(200);
  await waitFor(async () => (await allowed()) === 3);
  await w.redis.kill();
  for (let i = 0; i < 4; i++) expect((await use()).status).toBe(200);
  await w.redis.restart();
  await waitFor(async () => (await allowed()) === 7, { timeoutMs: 20_000 });
  const metrics = await (await fetch(`${w.service.opsUrl}/metrics`)).text();
  expect(metrics).toMatch(/latchkey_usage_events_total\{event="verdicts_lost",service="token-service"\} 0/);
});

test('a stop sends the counted usage, and only then closes the named Redis connections', async () => {
  const stopped = await w.another();
  const connections = async () =>
    [...String(await redis.call('CLIENT', 'LIST')).matchAll(/ name=(token-service-\S+)/g)]
      .map(([, name]) => name)
      .sort();
  const names = ['acknowledgements', 'invalidations', 'rates', 'usage'].map((name) => `token-service-${name}`);
  const ofBoth = names.flatMap((name) => [name, name]);
  await waitFor(async () => (await connections()).join() === ofBoth.join());
  const token = await issue(await w.member(), { scopes: ['tokens:read'] });
  expect((await w.bearer(token.secret, stopped).call('/v1/tokens/self')).status).toBe(200);
  await stopped.stop();
  expect((await sent()).flatMap(({ lines }) => lines).map(({ tokenId }) => tokenId)).toContain(token.id);
  await waitFor(async () => (await connections()).join() === names.join());
});
