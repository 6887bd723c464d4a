import type { IssuedToken, Project } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { ask, noteSecret, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* Everything here is real: the launcher's own processes, PostgreSQL and Redis, reached through the gateway alone. */

const place = placeOfRun();
const { url } = readyOf(place);
let admin: Person;
let project: Project;
let other: Project;

beforeAll(async () => {
  admin = await Person.admin(place);
  project = await admin.project('Observatory');
  other = await admin.project('Elsewhere');
});

const documents = (of: Project) => `${url}/demo/projects/${of.id}/documents`;
const problem = (status: number, code: string) => ({ status, body: { status, code, requestId: expect.any(String) } });

describe('issue', () => {
  it('shows the secret once, in the response that issues it', async () => {
    const issued = await admin.issue({ name: 'once', scopes: ['demo:read'] });
    expect(issued.secret).toMatch(/^lk_pat_[0-9A-Za-z]{36}$/);
    expect(issued.start).toBe(issued.secret.slice(0, 11));
    expect(await admin.token(issued.id)).not.toHaveProperty('secret');
    const list = await admin.call('GET', '/v1/tokens?q=once');
    expect(JSON.stringify(list.body)).not.toContain(issued.secret.slice(11));
  });

  it('issues one token for a retry with the same Idempotency-Key, and refuses another body', async () => {
    const send = (name: string) =>
      admin.call<IssuedToken>('POST', '/v1/tokens', { json: { name }, headers: { 'idempotency-key': 'retry-1' } });
    const first = await send('idempotent');
    noteSecret(place, first.body.secret);
    const again = await send('idempotent');
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(again.body.id).toBe(first.body.id);
    expect(again.body).not.toHaveProperty('secret');
    expect(await send('something else')).toMatchObject(problem(409, 'idempotency_conflict'));
  });
});

describe('use', () => {
  it('reaches the upstream with who calls instead of the token', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read', 'demo:write'] });
    const created = await ask<{ id: string; caller: object }>(documents(project), 'POST', {
      token: token.secret,
      json: { title: 'By token' },
    });
    expect(created.status).toBe(201);
    expect(created.body.caller).toEqual({
      tokenId: token.id,
      owner: `project:${project.id}`,
      project: project.id,
      scopes: ['demo:read', 'demo:write'],
      requestId: created.headers.get('x-request-id'),
    });
    const listed = await ask<{ items: { id: string }[] }>(documents(project), 'GET', { token: token.secret });
    expect(listed.body.items.map(({ id }) => id)).toContain(created.body.id);
  });

  it('accepts no identity from outside: identity headers from outside are dropped, and so are credentials', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read'] });
    const forged = {
      'x-latchkey-owner': 'user:evil',
      'X-Latchkey-Token-Id': 'evil',
      x_latchkey_owner: 'evil',
      'x-latchkey-Scopes': 'all',
      cookie: admin.cookie,
    };
    const events = await fetch(`${url}/demo/projects/${project.id}/events`, {
      headers: { ...forged, authorization: `Bearer ${token.secret}` },
    });
    const { value } = await events.body!.getReader().read();
    const hello = Buffer.from(value!).toString('utf8');
    expect(hello).toContain(token.id);
    expect(hello).not.toContain('evil');
    const whoami = await ask<{ headers: Record<string, string> }>(`${url}/demo/whoami`, 'GET', {
      token: token.secret,
      headers: forged,
    });
    expect(whoami.status).toBe(200);
    expect(JSON.stringify(whoami.body)).not.toContain('evil');
    expect(whoami.body.headers).not.toHaveProperty('authorization');
    expect(whoami.body.headers).not.toHaveProperty('cookie');
  });

  it('carries bodies of some megabytes both ways unchanged', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read', 'demo:write'] });
    const bytes = Buffer.alloc(4_000_000, 'latchkey ');
    const file = `${url}/demo/projects/${project.id}/files/large.bin`;
    expect((await ask(file, 'PUT', { token: token.secret, body: bytes })).status).toBe(201);
    const back = await fetch(file, { headers: { authorization: `Bearer ${token.secret}` } });
    expect(Buffer.from(await back.arrayBuffer()).equals(bytes)).toBe(true);
  });

  it('serves GraphQL', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read', 'demo:write'] });
    const response = await ask<{ data: { caller: { tokenId: string } } }>(`${url}/demo/graphql`, 'POST', {
      token: token.secret,
      json: { query: '{ caller { tokenId } }' },
    });
    expect(response).toMatchObject({ status: 200, body: { data: { caller: { tokenId: token.id } } } });
  });

  it('serves MCP tools, each by its own scope', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read'] });
    const call = (method: string, params: object) =>
      ask<{ result: Record<string, unknown> }>(`${url}/tools/mcp`, 'POST', {
        token: token.secret,
        headers: { accept: 'application/json, text/event-stream' },
        json: { jsonrpc: '2.0', id: 1, method, params },
      });
    const initialize = await call('initialize', {
      protocolVersion: '2025-11-25',
      capabilities: {},
      clientInfo: { name: 'e2e', version: '1' },
    });
    expect(initialize.body.result).toMatchObject({ protocolVersion: '2025-11-25' });
    const found = await call('tools/call', { name: 'search', arguments: { project: project.id, query: 'token' } });
    expect(found).toMatchObject({ status: 200, body: { result: { isError: false } } });
    const refused = await call('tools/call', {
      name: 'create_document',
      arguments: { project: project.id, title: 'x' },
    });
    expect(refused.status).toBe(403);
    expect(refused.headers.get('www-authenticate')).toMatch(/^Bearer .*error="insufficient_scope".*scope="demo:write"/);
  });

  it('opens public routes to everyone, and drops a credential even there', async () => {
    expect((await ask(`${url}/docs/start`)).status).toBe(200);
    expect((await ask(`${url}/docs/start`, 'GET', { token: 'anything' })).status).toBe(200);
  });
});

describe('refuse', () => {
  it('asks for a token with a plain challenge', async () => {
    const response = await ask(documents(project));
    expect(response).toMatchObject(problem(401, 'unauthenticated'));
    expect(response.headers.get('www-authenticate')).toMatch(/^Bearer realm="[^"]+"$/);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
  });

  it('does not show callers whether a token is malformed, unknown, revoked, disabled or expired', async () => {
    const revoked = await admin.issue({ scopes: ['demo:read'] });
    await admin.revoke(revoked.id);
    const disabled = await admin.issue({ scopes: ['demo:read'] });
    expect((await admin.call('PATCH', `/v1/tokens/${disabled.id}`, { json: { disabled: true } })).status).toBe(200);
    const never = 'lk_pat_000000000000000000000000000000000000';
    const responses = await Promise.all(
      [revoked.secret, disabled.secret, never, 'nonsense'].map((token) =>
        ask<{ detail: string; requestId: string }>(documents(project), 'GET', { token }),
      ),
    );
    for (const response of responses) expect(response).toMatchObject(problem(401, 'invalid_token'));
    const shown = responses.map(({ headers, body }) =>
      JSON.stringify([headers.get('www-authenticate'), { ...body, requestId: '' }]),
    );
    expect(new Set(shown).size).toBe(1);
  });

  it('returns 403 insufficient_scope and names the scope that is missing', async () => {
    const reader = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read'] });
    const response = await ask(documents(project), 'POST', { token: reader.secret, json: { title: 'x' } });
    expect(response).toMatchObject(problem(403, 'insufficient_scope'));
    expect(response.headers.get('www-authenticate')).toMatch(
      /^Bearer realm="[^"]+", error="insufficient_scope", scope="demo:write"$/,
    );
  });

  it('limits a project token to its project', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read'] });
    const response = await ask<{ requestId: string }>(documents(other), 'GET', { token: token.secret });
    expect(response).toMatchObject(problem(403, 'insufficient_scope'));
    expect(response.headers.get('www-authenticate')).toContain('error="insufficient_scope"');
  });

  it('takes one token, in the header and nowhere else', async () => {
    const token = await admin.issue({ scopes: ['demo:read'] });
    for (const [target, headers] of [
      [`${documents(project)}?access_token=${token.secret}`, {}],
      [`${documents(project)}?access_token=${token.secret}`, { authorization: `Bearer ${token.secret}` }],
      [documents(project), { authorization: `Bearer ${token.secret}, Bearer ${token.secret}` }],
    ] as const) {
      expect((await ask(target, 'GET', { headers })).status).toBeLessThan(500);
      expect((await ask(target, 'GET', { headers })).status).not.toBe(200);
    }
    expect(await ask(`${documents(project)}?access_token=${token.secret}`)).toMatchObject(
      problem(400, 'invalid_request'),
    );
  });

  it('ends a token at its end, by the gateway itself, within a second', async () => {
    const token = await admin.issue({ scopes: ['demo:read'], expiresInSeconds: 2 });
    const end = Date.parse(token.expiresAt!);
    let firstDenial = 0;
    let lastUse = 0;
    await waitFor(
      async () => {
        const asked = Date.now();
        const { status } = await ask(documents(project), 'GET', { token: token.secret });
        if (status === 200) lastUse = asked;
        else firstDenial = Date.now();
        return firstDenial;
      },
      { intervalMs: 30, what: 'the denial of an expired token' },
    );
    expect(lastUse).toBeGreaterThan(0);
    expect(lastUse).toBeLessThanOrEqual(end);
    expect(firstDenial).toBeGreaterThanOrEqual(end);
    expect(firstDenial - end).toBeLessThan(1_000);
  });

  it('refuses addresses outside allowedIps, and more calls than the rate allows', async () => {
    const elsewhere = await admin.issue({ scopes: ['demo:read'], allowedIps: ['203.0.113.0/24'] });
    expect(await ask(documents(project), 'GET', { token: elsewhere.secret })).toMatchObject(
      problem(403, 'address_not_allowed'),
    );
    const spoofed = await ask(documents(project), 'GET', {
      token: elsewhere.secret,
      headers: { 'x-forwarded-for': '203.0.113.5' },
    });
    expect(spoofed.status).toBe(403);
    const slow = await admin.issue({ scopes: ['demo:read'], rateLimit: { limit: 3, windowSeconds: 3_600 } });
    const statuses = [];
    for (let i = 0; i < 5; i++) statuses.push((await ask(documents(project), 'GET', { token: slow.secret })).status);
    expect(statuses).toEqual([200, 200, 200, 429, 429]);
    const limited = await ask(documents(project), 'GET', { token: slow.secret });
    expect(Number(limited.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(limited.headers.get('ratelimit')).not.toBeNull();
  });
});
