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
  it('lets a token with the scope through, and tells the upstream who calls', async () => {
    const { secret, facts } = s.authority.issue({ grants: [{ project, scopes: ['demo:read', 'demo:write'] }] });
    const answer = await call(`/demo/projects/${project}/documents?limit=3`, secret);
    expect([answer.statusCode, await answer.body.text()]).toEqual([200, 'ok']);
    expect(s.upstream.seen.at(-1)).toMatchObject({ method: 'GET', url: `/projects/${project}/documents?limit=3` });
    expect(s.upstream.lastHeader('x-latchkey-token-id')).toBe(facts.id);
    expect(s.upstream.lastHeader('x-latchkey-owner')).toBe(`user:${facts.ownerId}`);
    expect(s.upstream.lastHeader('x-latchkey-project')).toBe(project);
    expect(s.upstream.lastHeader('x-latchkey-scopes')).toBe('demo:read demo:write');
    expect(s.upstream.lastHeader('x-forwarded-for')).toBe('127.0.0.1');
    expect(s.upstream.lastHeader('x-request-id')).toBe(answer.headers['x-request-id']);
    expect(s.upstream.lastHeader('authorization')).toBeUndefined();
    expect(answer.headers['content-security-policy']).toBe('sandbox');
  });

  it('asks for a token when none came', async () => {
    const answer = await call('/any/x');
    expect(answer.statusCode).toBe(401);
    expect(answer.headers['www-authenticate']).toBe('Bearer realm="latchkey"');
    expect(await answer.body.json()).toMatchObject({
      code: 'unauthenticated',
      requestId: answer.headers['x-request-id'],
    });
  });

  it('does not tell unknown, revoked and expired tokens apart', async () => {
    const revoked = s.authority.issue({ denial: 'revoked' });
    const expired = s.authority.issue({ expiresAtMs: 1 });
    const unknown = s.authority.issue();
    s.authority.tokens.delete(hashSecret(unknown.secret));
    const answers = [];
    for (const { secret } of [revoked, expired, unknown, { secret: 'nonsense' }]) {
      const answer = await call('/any/x', secret);
      const { requestId, ...body } = (await answer.body.json()) as { requestId: string };
      expect(requestId).toBe(answer.headers['x-request-id']);
      answers.push({ status: answer.statusCode, challenge: answer.headers['www-authenticate'], body });
    }
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(answers[0]).toMatchObject({ status: 401, challenge: expect.stringContaining('error="invalid_token"') });
  });

  it('names the scope that is missing', async () => {
    const { secret } = s.authority.issue({ grants: [{ project, scopes: ['demo:read'] }] });
    const answer = await call(`/demo/projects/${project}/documents`, secret, { method: 'POST', body: '{}' });
    expect(answer.statusCode).toBe(403);
    expect(answer.headers['www-authenticate']).toContain('error="insufficient_scope", scope="demo:write"');
    await answer.body.dump();
  });

  it('refuses another project', async () => {
    const { secret } = s.authority.issue({ grants: [{ project: newId(), scopes: ['demo:read'] }] });
    const answer = await call(`/demo/projects/${project}/documents`, secret);
    expect(answer.statusCode).toBe(403);
    await answer.body.dump();
  });

  it('offers only the methods it names', async () => {
    const { secret } = s.authority.issue();
    const answer = await call('/read/x', secret, { method: 'DELETE' });
    expect([answer.statusCode, answer.headers['allow']]).toEqual([405, 'GET, HEAD']);
    await answer.body.dump();
    const head = await call('/read/x', secret, { method: 'HEAD' });
    expect(head.statusCode).toBe(200);
  });

  it('that is public asks for no token and drops any', async () => {
    const answer = await call('/docs/', 'whatever');
    expect(answer.statusCode).toBe(200);
    await answer.body.dump();
    expect(s.upstream.lastHeader('authorization')).toBeUndefined();
  });

  it('goes below the base of its upstream', async () => {
    const { secret } = s.authority.issue();
    await (await call('/any/a/b?c', secret)).body.dump();
    expect(s.upstream.seen.at(-1)!.url).toBe('/base/a/b?c');
  });

  it('nowhere is 404', async () => {
    const answer = await call('/nowhere');
    expect(answer.statusCode).toBe(404);
    expect(await answer.body.json()).toMatchObject({ code: 'not_found' });
  });

  it('passes a body on and an answer back', async () => {
    const { secret } = s.authority.issue();
    s.upstream.handler = (req, res) => {
      const chunks: Buffer[] = [];
      req.on('data', (chunk) => chunks.push(chunk)).on('end', () => res.writeHead(201).end(Buffer.concat(chunks)));
    };
    const body = Buffer.alloc(300_000, 'x');
    const answer = await call('/any/x', secret, { method: 'POST', body });
    expect(answer.statusCode).toBe(201);
    expect(Buffer.from(await answer.body.arrayBuffer()).equals(body)).toBe(true);
  });
});
