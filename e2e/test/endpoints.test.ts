import path from 'node:path';
import { ENDPOINTS, type Project } from '@latchkey/contracts';
import { bearer, isUnavailable, tokensCaller } from '@latchkey/runtime';
import { type RunningService, spawnService, waitFor } from '@latchkey/testing';
import { ask, askRaw, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

const place = placeOfRun();
const { url, apiUrl, opsUrl, rpcAddress } = readyOf(place);
let admin: Person;
let project: Project;
let other: Project;
beforeAll(async () => {
  admin = await Person.admin(place);
  project = await admin.project('Endpoints');
  other = await admin.project('Other endpoints');
});
const reader = () => admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read'] });

describe('forward-auth', () => {
  const forward = (token: string | undefined, query = '', headers: Record<string, string> = {}) =>
    ask(`${opsUrl}/forward-auth${query}`, 'GET', { ...(token ? { token } : {}), headers });

  it('returns 204 with the identity, or denies as the proxy does', async () => {
    const token = await reader();
    const allowed = await forward(token.secret, `?scope=demo:read&project=${project.id}`);
    expect(allowed.status).toBe(204);
    expect(allowed.headers.get('x-latchkey-token-id')).toBe(token.id);
    expect(allowed.headers.get('x-latchkey-owner')).toBe(`project:${project.id}`);
    expect((await forward(token.secret, '?scope=demo:write')).status).toBe(403);
    expect((await forward(token.secret, `?scope=demo:read&project=${other.id}`)).status).toBe(403);
    const none = await forward(undefined, '?scope=demo:read');
    expect([none.status, none.headers.get('www-authenticate')?.startsWith('Bearer ')]).toEqual([401, true]);
    await admin.revoke(token.id);
    expect((await forward(token.secret, '?scope=demo:read')).status).toBe(401);
  });

  it("requires both the routes file's rule and the query's", async () => {
    const token = await reader();
    const asked = (method: string, uri: string) => ({ 'x-forwarded-method': method, 'x-forwarded-uri': uri });
    const documents = `/demo/projects/${project.id}/documents`;
    expect((await forward(token.secret, '', asked('GET', documents))).status).toBe(204);
    expect((await forward(token.secret, '', asked('POST', documents))).status).toBe(403);
    expect((await forward(token.secret, '', asked('GET', `/demo/projects/${other.id}/documents`))).status).toBe(403);
    expect((await forward(token.secret, '?scope=demo:write', asked('GET', documents))).status).toBe(403);
    expect((await forward(undefined, '?scope=demo:read', asked('GET', '/docs/start'))).status).toBe(401);
  });
});

describe('gRPC', () => {
  it('verifies for a caller with tokens:verify, and for no one else', async () => {
    const service = await admin.issue({ scopes: ['tokens:verify'] });
    const token = await reader();
    const ask = {
      token: token.secret,
      scopes: ['demo:read'],
      project: project.id,
      ip: '127.0.0.1',
      route: 'e2e',
      userAgent: '',
    };
    const rpc = tokensCaller({ address: rpcAddress, authorization: bearer(service.secret) });
    expect(await rpc.verify(ask)).toMatchObject({ allowed: true, tokenId: token.id, owner: `project:${project.id}` });
    expect(await rpc.verify({ ...ask, scopes: ['demo:write'] })).toMatchObject({
      allowed: false,
      denial: 'insufficient_scope',
    });
    await admin.revoke(token.id);
    expect(await rpc.verify(ask)).toMatchObject({ allowed: false, denial: 'revoked' });
    await admin.revoke(service.id);
    const failure = await rpc.verify(ask).catch((error: unknown) => error);
    expect(isUnavailable(failure)).toBe(false);
    expect(failure).toMatchObject({ code: 16 });
    rpc.close();
    const unprivileged = tokensCaller({ address: rpcAddress, authorization: bearer((await reader()).secret) });
    await expect(unprivileged.verify(ask)).rejects.toMatchObject({ code: 7 });
    unprivileged.close();
  });
});

describe('OAuth 2.0', () => {
  const form = (path: string, token: string, body: Record<string, string>) =>
    ask<Record<string, unknown>>(url + path, 'POST', {
      token,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(body).toString(),
    });

  it('introspects as in RFC 7662, and shows nothing of an inactive token', async () => {
    const service = await admin.issue({ scopes: ['tokens:verify'] });
    const token = await reader();
    const active = await form('/oauth2/introspect', service.secret, { token: token.secret });
    expect(active).toMatchObject({ status: 200, body: { active: true, token_type: 'Bearer', jti: token.id } });
    expect(String(active.body['scope']).split(' ')).toContain('demo:read');
    await admin.revoke(token.id);
    expect((await form('/oauth2/introspect', service.secret, { token: token.secret })).body).toEqual({ active: false });
    expect((await form('/oauth2/introspect', token.secret, { token: token.secret })).status).toBe(401);
  });

  it('revokes as in RFC 7009, with 200 for unknown tokens', async () => {
    const service = await admin.issue({ scopes: ['tokens:verify'] });
    const token = await reader();
    expect((await form('/oauth2/revoke', service.secret, { token: token.secret })).status).toBe(200);
    expect((await ask(`${url}/demo/projects/${project.id}/documents`, 'GET', { token: token.secret })).status).toBe(
      401,
    );
    expect((await form('/oauth2/revoke', service.secret, { token: 'unknown' })).status).toBe(200);
  });
});

describe('the Nest example', () => {
  let service: RunningService;
  let address: string;
  beforeAll(async () => {
    const own = await admin.issue({ scopes: ['tokens:verify'] });
    const main = path.join(import.meta.dirname, '..', '..', 'examples', 'nest-guard', 'dist', 'main.js');
    service = await spawnService(
      main,
      { PORT: '0', LATCHKEY_RPC: rpcAddress, LATCHKEY_TOKEN: own.secret },
      { readyText: 'listening' },
    );
    address = /listening (\S+)/.exec(service.logs())![1]!;
  });
  afterAll(() => service.stop());

  it('guards its own routes with the errors of RFC 6750', async () => {
    const token = await reader();
    const notes = (of: Project) => `${address}/projects/${of.id}/notes`;
    expect(await ask(`${address}/whoami`, 'GET', { token: token.secret })).toMatchObject({
      status: 200,
      body: { tokenId: token.id },
    });
    expect((await ask(notes(project), 'GET', { token: token.secret })).status).toBe(200);
    const narrow = await ask(notes(project), 'POST', { token: token.secret, json: { text: 'x' } });
    expect(narrow.status).toBe(403);
    expect(narrow.headers.get('www-authenticate')).toBe(
      'Bearer realm="api", error="insufficient_scope", scope="demo:write"',
    );
    expect((await ask(notes(other), 'GET', { token: token.secret })).status).toBe(403);
    await admin.revoke(token.id);
    const revoked = await ask(notes(project), 'GET', { token: token.secret });
    expect(revoked).toMatchObject({ status: 401, body: { code: 'invalid_token' } });
    expect(revoked.headers.get('www-authenticate')).toContain('error="invalid_token"');
  });
});

describe('the built-in MCP server', () => {
  it('offers a token what the management API offers it, and no more', async () => {
    const token = await admin.issue({ scopes: ['tokens:read', 'demo:read'] });
    const call = (method: string, params: object) =>
      ask<{ result: { tools?: { name: string }[] } }>(`${url}/mcp`, 'POST', {
        token: token.secret,
        headers: { accept: 'application/json, text/event-stream' },
        json: { jsonrpc: '2.0', id: 1, method, params },
      });
    const listed = await call('tools/list', {});
    const names = listed.body.result.tools!.map(({ name }) => name).sort();
    expect(names).toEqual(['create_token', 'list_tokens', 'revoke_token', 'rotate_token', 'token_usage', 'whoami']);
    expect((await call('tools/call', { name: 'whoami', arguments: {} })).status).toBe(200);
    const refused = await call('tools/call', { name: 'create_token', arguments: { name: 'x' } });
    expect(refused.status).toBe(403);
    expect(refused.headers.get('www-authenticate')).toContain('tokens:write');
    expect((await ask(`${url}/mcp`, 'POST', { json: {} })).status).toBe(401);
    expect((await ask(`${url}/mcp`, 'GET', { token: token.secret })).status).toBe(405);
  });
});

describe('what everyone can read', () => {
  it('describes every call in OpenAPI 3.1, readable at /v1/docs', async () => {
    const { status, body } = await ask<{ openapi: string; paths: Record<string, Record<string, unknown>> }>(
      `${url}/v1/openapi.json`,
    );
    expect([status, body.openapi.slice(0, 3)]).toEqual([200, '3.1']);
    for (const { method, path: at } of Object.values(ENDPOINTS))
      expect(body.paths[at]).toHaveProperty(method.toLowerCase());
    const docs = await ask<string>(`${url}/v1/docs`);
    expect([docs.status, docs.headers.get('content-type')?.startsWith('text/html')]).toEqual([200, true]);
  });

  it('serves probes on every port, and metrics on the inner ones alone', async () => {
    for (const base of [url, opsUrl]) {
      expect((await ask(`${base}/healthz`)).status).toBe(200);
      await waitFor(async () => (await ask(`${base}/readyz`)).status === 200);
    }
    const metrics = await askRaw(opsUrl, '/metrics');
    expect([metrics.status, metrics.text.includes('# TYPE')]).toEqual([200, true]);
    expect((await ask(`${url}/metrics`)).status).toBe(404);
    expect((await ask(`${apiUrl}/metrics`)).status).toBe(404);
  });

  it('serves the console at /', async () => {
    const page = await ask<string>(`${url}/`);
    expect([page.status, page.headers.get('content-type')?.startsWith('text/html')]).toEqual([200, true]);
    expect(page.headers.get('content-security-policy')).toBeTruthy();
  });
});
