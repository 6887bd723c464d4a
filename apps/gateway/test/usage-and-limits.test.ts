import { once } from 'node:events';
import { REDIS, readUsageBatch, type UsageBatch } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { request } from 'undici';
import { USAGE_SECRET } from './authority.js';
import { type Stack, stack } from './stack.js';

const routes = (upstream: string) => `
routes:
  - { name: read, path: /read/*, upstream: "${upstream}", require: { scopes: { GET: [demo:read], "*": [demo:write] } } }
  - { name: open, path: /open/*, upstream: "${upstream}", public: true }
`;
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}`, 'user-agent': 'test/1' });

async function call(s: Stack, path: string, secret: string, method: 'GET' | 'POST' = 'GET') {
  const response = await request(`${s.gateway.url}${path}`, { method, headers: bearer(secret) });
  await response.body.dump();
  return response;
}

/** Every batch in the stream, authenticated as jobs does it. */
async function batches(s: Stack): Promise<UsageBatch[]> {
  const entries = await s.client.xrange(REDIS.usage, '-', '+');
  return entries.map(([, fields]) => {
    const event = Object.fromEntries(
      Array.from({ length: fields.length / 2 }, (_, i) => [fields[2 * i], fields[2 * i + 1]]),
    );
    const read = readUsageBatch([USAGE_SECRET], event);
    if (typeof read === 'string') throw new Error(`invalid batch: ${read}`);
    return read.batch;
  });
}
const counted = (all: UsageBatch[], tokenId: string, status: string) =>
  all
    .flatMap(({ lines }) => lines)
    .filter((line) => line.tokenId === tokenId && line.status === status)
    .reduce((sum, { count }) => sum + count, 0);

describe('usage', () => {
  it('counts every verdict of a token once, by route, status and caller', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    for (let i = 0; i < 37; i++) await call(s, '/read/x', token.secret);
    for (let i = 0; i < 5; i++) await call(s, '/read/x', token.secret, 'POST');
    await call(s, '/open/x', token.secret);
    await waitFor(async () => counted(await batches(s), token.snapshot.id, 'insufficient_scope') === 5);
    const all = await batches(s);
    expect(counted(all, token.snapshot.id, 'allowed')).toBe(37);
    const lines = all.flatMap((batch) => batch.lines);
    expect(new Set(lines.map(({ route, ip, userAgent }) => `${route} ${ip} ${userAgent}`))).toEqual(
      new Set(['read 127.0.0.1 test/1']),
    );
    expect(all.map(({ sequence }) => sequence)).toEqual(all.map((_, i) => i + 1));
    expect(new Set(all.map(({ verifier }) => verifier)).size).toBe(1);
  });

  it('counts verdicts from a Redis outage exactly once after it', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    await s.redis.kill();
    for (let i = 0; i < 20; i++) expect((await call(s, '/read/x', token.secret)).statusCode).toBe(200);
    await s.redis.restart();
    await waitFor(async () => counted(await batches(s), token.snapshot.id, 'allowed') >= 20, { timeoutMs: 20_000 });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(counted(await batches(s), token.snapshot.id, 'allowed')).toBe(20);
  });

  it('since the last batch is sent by an orderly stop', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    await call(s, '/read/x', token.secret);
    await s.gateway.stop();
    expect(counted(await batches(s), token.snapshot.id, 'allowed')).toBe(1);
  });

  it('of the last 30 s is sent again to a Redis restarted empty, under the same sequence numbers', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    for (let i = 0; i < 7; i++) await call(s, '/read/x', token.secret);
    await waitFor(async () => counted(await batches(s), token.snapshot.id, 'allowed') === 7);
    const before = await batches(s);
    await s.redis.restart();
    await waitFor(async () => counted(await batches(s), token.snapshot.id, 'allowed') === 7, { timeoutMs: 20_000 });
    expect(await batches(s)).toEqual(before);
  });
});

describe('denials', () => {
  it('are recorded under the requestId of the response', async () => {
    await using s = await stack(routes);
    const revoked = s.authority.issue({ denial: 'revoked' });
    const restored = s.authority.issue({ denial: 'restored' });
    const ids: Record<string, string> = { revoked: revoked.snapshot.id, restored: restored.snapshot.id };
    const reasons = new Map<string, string>();
    for (const [secret, reason] of [
      [revoked.secret, 'revoked'],
      [restored.secret, 'restored'],
      ['nonsense', 'malformed'],
      [`${revoked.secret.slice(0, -1)}_`, 'malformed'],
    ])
      reasons.set(String((await call(s, '/read/x', secret!)).headers['x-request-id']), reason!);
    const lines = async () => (await batches(s)).flatMap((batch) => batch.denials);
    await waitFor(async () => (await lines()).length >= 4);
    for (const line of await lines()) {
      expect(reasons.get(line.requestId)).toBe(line.reason);
      expect(line).toMatchObject({ route: 'read', method: 'GET', ip: '127.0.0.1' });
      expect(line.tokenId).toBe(ids[line.reason] ?? null);
    }
  });
});

describe('a rate limit', () => {
  const limited = (s: Stack, limit: number, windowSeconds = 60) =>
    s.authority.issue({ rateLimit: { limit, windowSeconds } });

  it('refuses requests beyond it with 429, Retry-After and RateLimit headers, and counts them', async () => {
    await using s = await stack(routes);
    const token = limited(s, 3);
    const responses = [];
    for (let i = 0; i < 5; i++) responses.push(await call(s, '/read/x', token.secret));
    expect(responses.map(({ statusCode }) => statusCode)).toEqual([200, 200, 200, 429, 429]);
    expect(responses[0]!.headers).toMatchObject({
      'ratelimit-policy': '"token";q=3;w=60',
      ratelimit: expect.stringMatching(/^"token";r=2;t=\d+$/),
    });
    expect(responses[3]!.headers).toMatchObject({
      'retry-after': expect.stringMatching(/^[1-9]\d?$/),
      ratelimit: expect.stringMatching(/^"token";r=0;t=\d+$/),
    });
    await waitFor(async () => counted(await batches(s), token.snapshot.id, 'rate_limited') === 2);
    expect(counted(await batches(s), token.snapshot.id, 'allowed')).toBe(3);
  });

  it('is shared by all gateways', async () => {
    await using s = await stack(routes);
    await using other = await stack(routes, { REDIS_URL: s.redis.url });
    const token = limited(s, 4);
    other.authority.tokens.clear();
    for (const [hash, snapshot] of s.authority.tokens) other.authority.tokens.set(hash, snapshot);
    const statuses = [];
    for (let i = 0; i < 6; i++) statuses.push((await call(i % 2 ? s : other, '/read/x', token.secret)).statusCode);
    expect(statuses.filter((status) => status === 200)).toHaveLength(4);
  });

  it('applies together with those of the ancestor tokens: each use counts in all of them, or in none', async () => {
    await using s = await stack(routes);
    const issue = (limit: number) => {
      const rates = [
        { bucket: '', limit, windowSeconds: 60 },
        { bucket: 'the ancestor', limit: 4, windowSeconds: 60 },
      ];
      return s.authority.issue({ rateLimit: { limit, windowSeconds: 60 }, rates });
    };
    const [first, second] = [issue(3), issue(3)];
    const statuses = async (secret: string) => {
      const seen: number[] = [];
      for (let i = 0; i < 4; i++) seen.push((await call(s, '/read/x', secret)).statusCode);
      return seen;
    };
    expect(await statuses(first.secret)).toEqual([200, 200, 200, 429]);
    expect(await statuses(second.secret)).toEqual([200, 429, 429, 429]);
  });

  it('allows requests again once its window has passed', async () => {
    await using s = await stack(routes);
    const token = limited(s, 1, 1);
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(200);
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(429);
    await waitFor(async () => (await call(s, '/read/x', token.secret)).statusCode === 200);
    const metrics = await (await fetch(`http://127.0.0.1:${s.gateway.opsPort}/metrics`)).text();
    // Counted in Redis throughout: falling back to a local count would look like a new window.
    expect(metrics).toContain('latchkey_rate_limit_counted_alone_total{service="gateway"} 0');
  });

  it.each(['kill', 'pause'] as const)(
    'is counted by each gateway alone while Redis is unavailable (%s), which refuses no request',
    async (fault) => {
      await using s = await stack(routes);
      const token = limited(s, 5);
      await s.redis[fault]();
      const statuses = [];
      for (let i = 0; i < 7; i++) statuses.push((await call(s, '/read/x', token.secret)).statusCode);
      expect(statuses).toEqual([200, 200, 200, 200, 200, 429, 429]);
      if (fault === 'pause') s.redis.resume();
      else await s.redis.restart();
    },
  );
});

describe('while the token-service is unavailable', () => {
  it('a token in memory is accepted until the lease expires, then the response is 503, never 401', async () => {
    await using s = await stack(routes, {}, (authority) => {
      authority.leaseMs = 1_500;
    });
    const token = s.authority.issue();
    const other = s.authority.issue();
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(200);
    s.authority.close();
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(200);
    const unknown = await call(s, '/read/x', other.secret);
    expect([unknown.statusCode, unknown.headers['retry-after']]).toEqual([503, '1']);
    await waitFor(async () => (await call(s, '/read/x', token.secret)).statusCode === 503, { timeoutMs: 20_000 });
    const ready = await request(`${s.gateway.url}/readyz`);
    expect(ready.statusCode).toBe(503);
    await ready.body.dump();
    expect((await call(s, '/open/x', token.secret)).statusCode).toBe(200);
  });

  it('a token is refused once a revocation over Redis is acknowledged', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(200);
    const listener = s.client.duplicate();
    await listener.subscribe(REDIS.acknowledgements);
    const acknowledged = once(listener, 'message');
    await s.authority.revoke(token, s.client);
    await acknowledged;
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(401);
    listener.disconnect();
  });
});
