import type { ServerResponse } from 'node:http';
import { problem } from '@latchkey/contracts';
import { readRetryAfter } from '../src/errors.js';
import { type Client, createClient, LatchkeyError, type Token } from '../src/index.js';
import { json, type Seen, serve } from './server.js';

const id = '01890000-0000-7000-8000-000000000001';
const unavailable = problem('unavailable', 'PostgreSQL is unavailable; try again', 'req-1');
const quick = { delayMsMin: 1, delayMsMax: 1_500 };

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

async function against(respond: (seen: Seen, response: ServerResponse, nth: number) => void, options = {}) {
  const server = await serve(respond);
  stops.push(server.stop);
  const client = createClient({ baseUrl: server.baseUrl, token: 'lk_pat_x', retries: quick, ...options });
  return { ...server, client };
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => {
      throw new Error('the call succeeded');
    },
    (error: unknown) => error as LatchkeyError,
  );

describe('requests', () => {
  it('sends parameters in the path, the query and the body', async () => {
    const { client, seen } = await against((_, response) => json(response, 200, { items: [], nextCursor: null }));
    await client.listTokens({ query: { q: 'a&b=c', limit: 5, cursor: undefined } });
    await client.patchToken({ params: { id }, body: { name: 'x' } }, { waitSeconds: 0 });
    await client.introspect({ body: { token: 'a+b' } });
    expect(seen.map((s) => [s.method, s.url, s.body])).toEqual([
      ['GET', '/v1/tokens?q=a%26b%3Dc&limit=5', ''],
      ['PATCH', `/v1/tokens/${id}`, '{"name":"x"}'],
      ['POST', '/oauth2/introspect', 'token=a%2Bb'],
    ]);
    expect(seen[1]?.headers).toMatchObject({
      prefer: 'wait=0',
      'content-type': 'application/json',
      authorization: 'Bearer lk_pat_x',
    });
    expect(seen[2]?.headers['content-type']).toBe('application/x-www-form-urlencoded');
  });

  it('calls the token function before each request', async () => {
    let n = 0;
    const { client, seen } = await against((_, response) => json(response, 200, {}), { token: async () => `t${++n}` });
    await client.getSelf();
    await client.getSelf();
    expect(seen.map((s) => s.headers.authorization)).toEqual(['Bearer t1', 'Bearer t2']);
  });

  it('sends cookies only without a token', async () => {
    const modes: unknown[] = [];
    const fetch: typeof globalThis.fetch = async (_, init) => {
      modes.push(init?.credentials);
      return new Response('{}', { headers: { 'content-type': 'application/json' } });
    };
    await createClient({ baseUrl: '', fetch }).whoAmI();
    await createClient({ baseUrl: '', fetch, credentials: 'include' }).whoAmI();
    await createClient({ baseUrl: '', fetch, token: 't' }).whoAmI();
    expect(modes).toEqual(['same-origin', 'include', 'omit']);
  });

  it('rejects a parameter that would lead to another path', async () => {
    const { client, seen } = await against((_, response) => json(response, 200, {}));
    for (const bad of ['', '.', '..'])
      await expect(client.getToken({ params: { id: bad } })).rejects.toThrow(TypeError);
    await client.getToken({ params: { id: '../users?x=1#y' } });
    expect(seen.map((s) => s.url)).toEqual(['/v1/tokens/..%2Fusers%3Fx%3D1%23y']);
  });

  it('rejects an invalid base URL', () => {
    for (const baseUrl of ['ftp://a', 'nonsense', 'http://user:pass@a', 'http://a/?x=1'])
      expect(() => createClient({ baseUrl })).toThrow(TypeError);
  });
});

describe('responses', () => {
  it('distinguishes responses by their status', async () => {
    const { client } = await against((_, response, nth) =>
      json(response, nth === 1 ? 201 : 200, nth === 1 ? { id, secret: 's' } : { id }),
    );
    const first = await client.call('issueToken', { body: { name: 'a' } });
    expect(first.status === 201 ? first.body.secret : undefined).toBe('s');
    const second = await client.issueToken({ body: { name: 'a' } });
    expect('secret' in second).toBe(false);
  });

  it('types the response of a change that reduces rights', async () => {
    const { client } = await against((_, response) =>
      json(response, 202, {
        token: { id },
        effective: false,
        receipt: null,
        pending: [{ id, name: 'g', leaseEndsInMs: 5 }],
      }),
    );
    const { effective, pending, token } = await client.revokeToken({ params: { id } }, { waitSeconds: 0 });
    expect([effective, pending[0]?.name, token.id]).toEqual([false, 'g', id]);
  });

  it('returns null for no body, and text for text', async () => {
    const { client } = await against((seen, response) => {
      if (seen.method === 'DELETE') response.writeHead(204).end();
      else response.writeHead(200, { 'content-type': 'application/x-ndjson' }).end('{"a":1}\n');
    });
    expect(await client.signOut()).toBeNull();
    expect(await client.exportAudit()).toBe('{"a":1}\n');
    const response = await client.open('exportAudit', { query: { format: 'ndjson' } });
    expect(await response.text()).toBe('{"a":1}\n');
  });

  it('iterates over all pages, fetching each only when it is needed', async () => {
    const { client, seen } = await against((one, response) => {
      const cursor = new URL(one.url, 'http://x').searchParams.get('cursor');
      const next = { null: 'b', b: 'c', c: null }[String(cursor)];
      json(response, 200, { items: [{ id: `${cursor}` }], nextCursor: next });
    });
    const found: Pick<Token, 'id'>[] = [];
    for await (const token of client.each('listTokens', { query: { limit: 1 } })) found.push(token);
    expect(found.map((t) => t.id)).toEqual(['null', 'b', 'c']);
    for await (const page of client.pages('listTokens')) {
      expect(page.items).toHaveLength(1);
      break;
    }
    expect(seen).toHaveLength(4);
  });
});

describe('errors', () => {
  it("carries the server's code, fields and requestId", async () => {
    const body = problem('invalid_request', 'name is missing', 'req-9', [{ field: 'name', message: 'is required' }]);
    const { client } = await against((_, response) => json(response, 400, body));
    const error = await failure(client.issueToken({ body: { name: '' } }));
    expect(error).toBeInstanceOf(LatchkeyError);
    expect(error).toMatchObject({
      code: 'invalid_request',
      status: 400,
      detail: 'name is missing',
      requestId: 'req-9',
      errors: [{ field: 'name', message: 'is required' }],
    });
  });

  it('reports a response that is not from Latchkey', async () => {
    const { client } = await against((seen, response, nth) => {
      if (nth === 1) response.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad gateway</h1>');
      else if (nth === 2) response.writeHead(302, { location: `http://elsewhere.invalid${seen.url}` }).end();
      else response.writeHead(200, { 'content-type': 'application/json' }).end('{"id":');
    });
    for (const status of [502, 302, 200])
      expect(await failure(client.getSelf())).toMatchObject({ code: 'bad_answer', status });
  });

  it('never follows a redirect with the token', async () => {
    const elsewhere = await against((_, response) => json(response, 200, {}));
    const { client } = await against((_, response) =>
      response.writeHead(307, { location: `${elsewhere.baseUrl}/v1/tokens/self` }).end(),
    );
    await failure(client.getSelf());
    expect(elsewhere.seen).toHaveLength(0);
  });

  it('fails at its timeout and at its signal', async () => {
    const { client } = await against(() => undefined);
    expect(await failure(client.getSelf(undefined, { timeoutMs: 30 }))).toMatchObject({ code: 'timeout', status: 0 });
    const ended = new AbortController();
    const reason = new Error('no longer wanted');
    const call = failure(client.getSelf(undefined, { signal: ended.signal }));
    ended.abort(reason);
    expect(await call).toBe(reason);
    expect(await failure(client.getSelf(undefined, { signal: ended.signal }))).toBe(reason);
  });

  it('fails at its timeout while it receives the body', async () => {
    const { client } = await against((_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).write('{');
    });
    expect(await failure(client.getSelf(undefined, { timeoutMs: 200 }))).toMatchObject({ code: 'timeout' });
  });
});

describe('retries', () => {
  it('repeats reads on 503, after the delay of Retry-After', async () => {
    const at: number[] = [];
    const { client } = await against((_, response, nth) => {
      at.push(performance.now());
      if (nth < 3) json(response, 503, unavailable, nth === 1 ? { 'retry-after': '1' } : {});
      else json(response, 200, { id });
    });
    await expect(client.getSelf()).resolves.toEqual({ id });
    expect(at).toHaveLength(3);
    expect((at[1] ?? 0) - (at[0] ?? 0)).toBeGreaterThanOrEqual(990);
  });

  it('repeats issuing a token with one Idempotency-Key, also after a broken connection', async () => {
    const { client, seen } = await against((_, response, nth) => {
      if (nth === 1) response.socket?.destroy();
      else if (nth === 2) json(response, 503, unavailable);
      else json(response, 201, { id, secret: 's' });
    });
    await client.issueToken({ body: { name: 'a' } });
    const keys = seen.map((s) => s.headers['idempotency-key']);
    expect(keys).toHaveLength(3);
    expect(new Set(keys).size).toBe(1);
    expect(keys[0]).toMatch(/^[0-9a-f]{32}$/);
    await client.issueToken({ body: { name: 'a' } }, { idempotencyKey: 'mine' });
    expect(seen[3]?.headers['idempotency-key']).toBe('mine');
    expect(seen[3]?.headers['idempotency-key']).not.toBe(keys[0]);
  });

  it('repeats no other change, and no rejected call', async () => {
    const { client, seen } = await against((one, response) => {
      if (one.method === 'GET') json(response, 401, problem('invalid_token', 'no', 'r'));
      else json(response, 503, unavailable);
    });
    const changes: ((c: Client) => Promise<unknown>)[] = [
      (c) => c.rotateSelf(),
      (c) => c.revokeToken({ params: { id } }),
      (c) => c.createProject({ body: { name: 'a' } }),
      (c) => c.putMember({ params: { id, userId: id }, body: { role: 'owner' } }),
    ];
    for (const change of changes) expect(await failure(change(client))).toMatchObject({ code: 'unavailable' });
    expect(await failure(client.getSelf())).toMatchObject({ code: 'invalid_token' });
    expect(seen).toHaveLength(changes.length + 1);
  });

  it('stops after its last attempt, or when Retry-After exceeds its limit', async () => {
    const { client, seen } = await against((one, response) =>
      json(response, 503, unavailable, one.url.includes('self') ? {} : { 'retry-after': '60' }),
    );
    expect(await failure(client.getSelf())).toMatchObject({ code: 'unavailable' });
    expect(seen).toHaveLength(3);
    expect(await failure(client.listTokens())).toMatchObject({ code: 'unavailable', retryAfterMs: 60_000 });
    expect(seen).toHaveLength(4);
  });

  it('reports an unreachable server', async () => {
    const server = await serve(() => undefined);
    await server.stop();
    const client = createClient({ baseUrl: server.baseUrl, retries: quick });
    expect(await failure(client.whoAmI())).toMatchObject({ code: 'network', status: 0, requestId: null });
  });

  it('reads both forms of Retry-After', () => {
    const now = Date.parse('2026-11-22T10:00:00Z');
    expect(readRetryAfter('7', now)).toBe(7_000);
    expect(readRetryAfter('Sun, 22 Nov 2026 10:00:09 GMT', now)).toBe(9_000);
    expect(readRetryAfter('Sun, 22 Nov 2026 09:00:00 GMT', now)).toBe(0);
    expect(readRetryAfter('soon', now)).toBeNull();
    expect(readRetryAfter(null, now)).toBeNull();
  });
});
