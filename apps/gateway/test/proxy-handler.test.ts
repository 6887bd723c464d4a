import { newId } from '@latchkey/runtime';
import { hashSecret } from '@latchkey/token-format';
import { request } from 'undici';
import { type Stack, stack } from './stack.js';

const project = newId();
let s: Stack;

beforeAll(async () => {
  s = await stack(
    (upstream) => `
routes:
  - name: projects
    path: /demo/projects/{project}/*
    upstream: ${upstream}
    stripPrefix: /demo
    require: { project: "{project}", scopes: { GET: [demo:read], "*": [demo:write] } }
  - name: any
    path: /any/*
    upstream: ${upstream}/base
    stripPrefix: /any
    require: {}
  - name: read-only
    path: /read/*
    upstream: ${upstream}
    require: { scopes: { GET: [demo:read] } }
  - name: docs
    path: /docs/*
    upstream: ${upstream}
    public: true
`,
  );
});
afterAll(async () => s[Symbol.asyncDispose]());
beforeEach(() => {
  s.upstream.handler = (_req, res) => res.end('ok');
});

const call = (path: string, secret?: string, options: Parameters<typeof request>[1] = {}) =>
  request(`${s.gateway.url}${path}`, {
    ...options,
    headers: { ...(secret ? { authorization: `Bearer ${secret}` } : {}), ...(options.headers as object) },
  });

describe('a route', () => {
  it('forwards a request whose token has the scope, with the identity headers', async () => {
    const { secret, snapshot } = s.authority.issue({ grants: [{ project, scopes: ['demo:read', 'demo:write'] }] });
    const response = await call(`/demo/projects/${project}/documents?limit=3`, secret);
    expect([response.statusCode, await response.body.text()]).toEqual([200, 'ok']);
    expect(s.upstream.seen.at(-1)).toMatchObject({ method: 'GET', url: `/projects/${project}/documents?limit=3` });
    expect(s.upstream.lastHeader('x-latchkey-token-id')).toBe(snapshot.id);
    expect(s.upstream.lastHeader('x-latchkey-owner')).toBe(`user:${snapshot.ownerId}`);
    expect(s.upstream.lastHeader('x-latchkey-project')).toBe(project);
    expect(s.upstream.lastHeader('x-latchkey-scopes')).toBe('demo:read demo:write');
    expect(s.upstream.lastHeader('x-forwarded-for')).toBe('127.0.0.1');
    expect(s.upstream.lastHeader('x-request-id')).toBe(response.headers['x-request-id']);
    expect(s.upstream.lastHeader('authorization')).toBeUndefined();
    expect(response.headers['content-security-policy']).toBe('sandbox');
  });

  it('responds 401 with a challenge without a token', async () => {
    const response = await call('/any/x');
    expect(response.statusCode).toBe(401);
    expect(response.headers['www-authenticate']).toBe('Bearer realm="latchkey"');
    expect(await response.body.json()).toMatchObject({
      code: 'unauthenticated',
      requestId: response.headers['x-request-id'],
    });
  });

  it('responds alike to unknown, revoked and expired tokens', async () => {
    const revoked = s.authority.issue({ denial: 'revoked' });
    const expired = s.authority.issue({ expiresAtMs: 1 });
    const unknown = s.authority.issue();
    s.authority.tokens.delete(hashSecret(unknown.secret));
    const responses = [];
    for (const { secret } of [revoked, expired, unknown, { secret: 'nonsense' }]) {
      const response = await call('/any/x', secret);
      const { requestId, ...body } = (await response.body.json()) as { requestId: string };
      expect(requestId).toBe(response.headers['x-request-id']);
      responses.push({ status: response.statusCode, challenge: response.headers['www-authenticate'], body });
    }
    expect(new Set(responses.map((response) => JSON.stringify(response))).size).toBe(1);
    expect(responses[0]).toMatchObject({ status: 401, challenge: expect.stringContaining('error="invalid_token"') });
  });

  it('responds 503 with Retry-After and no challenge to a token from before an unsettled restore', async () => {
    const response = await call('/any/x', s.authority.issue({ denial: 'restored' }).secret);
    expect([response.statusCode, response.headers['retry-after'], response.headers['www-authenticate']]).toEqual([
      503,
      '1',
      undefined,
    ]);
    expect(await response.body.json()).toMatchObject({ code: 'restored', requestId: response.headers['x-request-id'] });
  });

  it('responds 403 with the missing scope', async () => {
    const { secret } = s.authority.issue({ grants: [{ project, scopes: ['demo:read'] }] });
    const response = await call(`/demo/projects/${project}/documents`, secret, { method: 'POST', body: '{}' });
    expect(response.statusCode).toBe(403);
    expect(response.headers['www-authenticate']).toContain('error="insufficient_scope", scope="demo:write"');
    await response.body.dump();
  });

  it('refuses another project', async () => {
    const { secret } = s.authority.issue({ grants: [{ project: newId(), scopes: ['demo:read'] }] });
    const response = await call(`/demo/projects/${project}/documents`, secret);
    expect(response.statusCode).toBe(403);
    await response.body.dump();
  });

  it('offers only the methods that it lists', async () => {
    const { secret } = s.authority.issue();
    const response = await call('/read/x', secret, { method: 'DELETE' });
    expect([response.statusCode, response.headers['allow']]).toEqual([405, 'GET, HEAD']);
    await response.body.dump();
    const head = await call('/read/x', secret, { method: 'HEAD' });
    expect(head.statusCode).toBe(200);
  });

  it('that is public requires no token and drops any', async () => {
    const response = await call('/docs/', 'whatever');
    expect(response.statusCode).toBe(200);
    await response.body.dump();
    expect(s.upstream.lastHeader('authorization')).toBeUndefined();
  });

  it('forwards below the base path of its upstream', async () => {
    const { secret } = s.authority.issue();
    await (await call('/any/a/b?c', secret)).body.dump();
    expect(s.upstream.seen.at(-1)!.url).toBe('/base/a/b?c');
  });

  it('that does not exist is 404', async () => {
    const response = await call('/nowhere');
    expect(response.statusCode).toBe(404);
    expect(await response.body.json()).toMatchObject({ code: 'not_found' });
  });

  it('forwards the body and returns the response', async () => {
    const { secret } = s.authority.issue();
    s.upstream.handler = (req, res) => {
      const chunks: Buffer[] = [];
      req.on('data', (chunk) => chunks.push(chunk)).on('end', () => res.writeHead(201).end(Buffer.concat(chunks)));
    };
    const body = Buffer.alloc(300_000, 'x');
    const response = await call('/any/x', secret, { method: 'POST', body });
    expect(response.statusCode).toBe(201);
    expect(Buffer.from(await response.body.arrayBuffer()).equals(body)).toBe(true);
  });
});
