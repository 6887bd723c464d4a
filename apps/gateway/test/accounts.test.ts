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
  const answer = await request(`${s.gateway.url}${path}`, { method, headers: bearer(secret) });
  await answer.body.dump();
  return answer;
}

/** Every batch in the stream, authenticated as jobs does it. */
async function batches(s: Stack): Promise<UsageBatch[]> {
  const entries = await s.client.xrange(REDIS.usage, '-', '+');
  return entries.map(([, fields]) => {
    const event = Object.fromEntries(
      Array.from({ length: fields.length / 2 }, (_, i) => [fields[2 * i], fields[2 * i + 1]]),
    );
    const read = readUsageBatch(USAGE_SECRET, event);
    if (typeof read === 'string') throw new Error(`a batch is ${read}`);
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
    await waitFor(async () => counted(await batches(s), token.facts.id, 'insufficient_scope') === 5);
    const all = await batches(s);
    expect(counted(all, token.facts.id, 'allowed')).toBe(37);
    const lines = all.flatMap((batch) => batch.lines);
    expect(new Set(lines.map(({ route, ip, userAgent }) => `${route} ${ip} ${userAgent}`))).toEqual(
      new Set(['read 127.0.0.1 test/1']),
    );
    expect(all.map(({ sequence }) => sequence)).toEqual(all.map((_, i) => i + 1));
    expect(new Set(all.map(({ verifier }) => verifier)).size).toBe(1);
  });

  it('counts what came while Redis was away, once, when it is back', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    await s.redis.kill();
    for (let i = 0; i < 20; i++) expect((await call(s, '/read/x', token.secret)).statusCode).toBe(200);
    await s.redis.restart();
    await waitFor(async () => counted(await batches(s), token.facts.id, 'allowed') >= 20, { timeoutMs: 20_000 });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(counted(await batches(s), token.facts.id, 'allowed')).toBe(20);
  });

  it('of the last moment goes out with an orderly stop', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    await call(s, '/read/x', token.secret);
    await s.gateway.stop();
    expect(counted(await batches(s), token.facts.id, 'allowed')).toBe(1);
  });

  it('of the last half minute is sent again to a Redis that comes back empty, under the same numbers', async () => {
    await using s = await stack(routes);
    const token = s.authority.issue();
    for (let i = 0; i < 7; i++) await call(s, '/read/x', token.secret);
    await waitFor(async () => counted(await batches(s), token.facts.id, 'allowed') === 7);
    const before = await batches(s);
    await s.redis.restart();
    await waitFor(async () => counted(await batches(s), token.facts.id, 'allowed') === 7, { timeoutMs: 20_000 });
    expect(await batches(s)).toEqual(before);
  });
});

describe('denials', () => {
  it('can be looked up by the requestId that the caller was told', async () => {
    await using s = await stack(routes);
    const revoked = s.authority.issue({ denial: 'revoked' });
    const told = new Map<string, string>();
    for (const [secret, reason] of [
      [revoked.secret, 'revoked'],
      ['nonsense', 'malformed'],
      [`${revoked.secret.slice(0, -1)}_`, 'malformed'],
    ])
      told.set(String((await call(s, '/read/x', secret!)).headers['x-request-id']), reason!);
    const lines = async () => (await batches(s)).flatMap((batch) => batch.denials);
    await waitFor(async () => (await lines()).length >= 3);
    for (const line of await lines()) {
      expect(told.get(line.requestId)).toBe(line.reason);
      expect(line).toMatchObject({ route: 'read', method: 'GET', ip: '127.0.0.1' });
      expect(line.tokenId).toBe(line.reason === 'revoked' ? revoked.facts.id : null);
    }
  });
});

describe('a rate limit', () => {
  const limited = (s: Stack, limit: number, windowSeconds = 60) =>
    s.authority.issue({ rateLimit: { limit, windowSeconds } });

  it('refuses what is beyond it with 429, Retry-After and RateLimit headers, and counts that', async () => {
    await using s = await stack(routes);
    const token = limited(s, 3);
    const answers = [];
    for (let i = 0; i < 5; i++) answers.push(await call(s, '/read/x', token.secret));
    expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 200, 200, 429, 429]);
    expect(answers[0]!.headers).toMatchObject({
      'ratelimit-policy': '"token";q=3;w=60',
      ratelimit: expect.stringMatching(/^"token";r=2;t=\d+$/),
    });
    expect(answers[3]!.headers).toMatchObject({
      'retry-after': expect.stringMatching(/^[1-9]\d?$/),
      ratelimit: expect.stringMatching(/^"token";r=0;t=\d+$/),
    });
    await waitFor(async () => counted(await batches(s), token.facts.id, 'rate_limited') === 2);
    expect(counted(await batches(s), token.facts.id, 'allowed')).toBe(3);
  });

  it('holds for all gateways together', async () => {
    await using s = await stack(routes);
    await using other = await stack(routes, { REDIS_URL: s.redis.url });
    const token = limited(s, 4);
    other.authority.tokens.clear();
    for (const [hash, facts] of s.authority.tokens) other.authority.tokens.set(hash, facts);
    const statuses = [];
    for (let i = 0; i < 6; i++) statuses.push((await call(i % 2 ? s : other, '/read/x', token.secret)).statusCode);
    expect(statuses.filter((status) => status === 200)).toHaveLength(4);
  });

  it('is held beside those of the tokens that it was made with: each use counts in every one, or in none', async () => {
    await using s = await stack(routes);
    const made = (limit: number) => {
      const rates = [
        { bucket: '', limit, windowSeconds: 60 },
        { bucket: 'the one above', limit: 4, windowSeconds: 60 },
      ];
      return s.authority.issue({ rateLimit: { limit, windowSeconds: 60 }, rates });
    };
    const [first, second] = [made(3), made(3)];
    const statuses = async (secret: string) => {
      const seen: number[] = [];
      for (let i = 0; i < 4; i++) seen.push((await call(s, '/read/x', secret)).statusCode);
      return seen;
    };
    expect(await statuses(first.secret)).toEqual([200, 200, 200, 429]);
    expect(await statuses(second.secret)).toEqual([200, 429, 429, 429]);
  });

  it('begins anew when its window has passed', async () => {
    await using s = await stack(routes);
    const token = limited(s, 1, 1);
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(200);
    expect((await call(s, '/read/x', token.secret)).statusCode).toBe(429);
    await waitFor(async () => (await call(s, '/read/x', token.secret)).statusCode === 200);
    const metrics = await (await fetch(`http://127.0.0.1:${s.gateway.opsPort}/metrics`)).text();
    // Counted in Redis throughout: a change of who counts would look like a new window.
    expect(metrics).toContain('latchkey_rate_limit_counted_alone_total{service="gateway"} 0');
  });

  it.each(['kill', 'pause'] as const)(
    'is counted by each gateway alone while Redis is away (%s), and refuses nobody for that',
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

describe('while the token-service is away', () => {
  it('a token in memory is accepted until the lease ends, and is then 503, never 401', async () => {
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

  it('a revocation that Redis brings is obeyed at once', async () => {
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
