import { credentials, loadPackageDefinition, type ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { EXT_AUTHZ_PROTO_FILE } from '@latchkey/contracts';
import { newId, PROTO_OPTIONS } from '@latchkey/runtime';
import { request } from 'undici';
import { raw, type Stack, stack } from './stack.js';

const project = newId();
const routes = (upstream: string) => `
routes:
  - name: projects
    path: /demo/projects/{project}/*
    upstream: ${upstream}
    require: { project: "{project}", scopes: { GET: [demo:read], "*": [demo:write] } }
  - name: read-only
    path: /read/*
    upstream: ${upstream}
    require: { scopes: { GET: [demo:read] } }
  - name: docs
    path: /docs/*
    upstream: ${upstream}
    public: true
  - name: passing
    path: /passing/*
    upstream: ${upstream}
    forwardAuthorization: true
    require: {}
  - name: tools
    path: /tools/mcp
    kind: mcp
    upstream: ${upstream}
    tools: { search: [demo:read], "*": [demo:write] }
`;
const scopes = ['demo:read'];
let s: Stack;
beforeAll(async () => {
  s = await stack(routes);
});
afterAll(async () => s[Symbol.asyncDispose]());

async function forwardAuth(query: string, headers: Record<string, string>, port = s.gateway.opsPort) {
  const response = await request(`http://127.0.0.1:${port}/forward-auth${query}`, { headers });
  return { status: response.statusCode, headers: response.headers, body: await response.body.text() };
}
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

describe('forward-auth', () => {
  it('responds 204 with the identity headers', async () => {
    const { secret, snapshot } = s.authority.issue({ scopes });
    const response = await forwardAuth('?scope=demo:read', bearer(secret));
    expect(response.status).toBe(204);
    expect(response.headers).toMatchObject({
      'x-latchkey-token-id': snapshot.id,
      'x-latchkey-owner': `user:${snapshot.ownerId}`,
      'x-latchkey-project': '',
      'x-latchkey-scopes': 'demo:read',
      'x-request-id': expect.any(String),
    });
  });

  it('requires a token even without scope or project', async () => {
    const response = await forwardAuth('', {});
    expect([response.status, response.headers['www-authenticate']]).toEqual([401, 'Bearer realm="latchkey"']);
    expect((await forwardAuth('', bearer('lk_pat_nonsense'))).status).toBe(401);
  });

  it("enforces the query's scope and project", async () => {
    const { secret } = s.authority.issue({ scopes, grants: [{ project, scopes: ['demo:write'] }] });
    expect((await forwardAuth('?scope=demo:write', bearer(secret))).status).toBe(403);
    expect((await forwardAuth(`?scope=demo:write&project=${project}`, bearer(secret))).status).toBe(204);
    expect((await forwardAuth(`?scope=demo:read&project=${project}`, bearer(secret))).status).toBe(403);
    expect((await forwardAuth(`?project=${newId()}`, bearer(secret))).status).toBe(403);
    expect((await forwardAuth('?scope=demo:read%20demo:write', bearer(secret))).status).toBe(403);
  });

  it("enforces the routes file for the forwarded method and path, together with the query's requirement", async () => {
    const { secret } = s.authority.issue({ scopes, grants: [{ project, scopes }] });
    const forwarded = (method: string, uri: string) => ({
      ...bearer(secret),
      'x-forwarded-method': method,
      'x-forwarded-uri': uri,
    });
    const at = `/demo/projects/${project}/documents?limit=1`;
    expect((await forwardAuth('', forwarded('GET', at))).status).toBe(204);
    expect((await forwardAuth('', forwarded('GET', at))).headers['x-latchkey-project']).toBe(project);
    expect((await forwardAuth('', forwarded('POST', at))).status).toBe(403);
    expect((await forwardAuth('', forwarded('GET', `/demo/projects/${newId()}/documents`))).status).toBe(403);
    expect((await forwardAuth('?scope=demo:write', forwarded('GET', at))).status).toBe(403);
    expect((await forwardAuth('', forwarded('DELETE', '/read/x'))).status).toBe(403);
    expect((await forwardAuth('', forwarded('GET', '/read/../docs/x'))).status).toBe(400);
    expect((await forwardAuth('', forwarded('GET', '/docs/x?access_token=1'))).status).toBe(400);
    expect((await forwardAuth('', forwarded('GET', '/no/route'))).status).toBe(204);
    // Not another method, which the rule for "*" would be for, but none.
    for (const method of ['get', 'Post', 'GET, POST', ''])
      expect((await forwardAuth('', forwarded(method, at))).status).toBe(400);
  });

  it('allows a public route without a token, unless the query requires a scope', async () => {
    const forwarded = { 'x-forwarded-method': 'GET', 'x-forwarded-uri': '/docs/x' };
    const open = await forwardAuth('', forwarded);
    expect([open.status, open.headers['x-latchkey-token-id']]).toEqual([204, '']);
    expect((await forwardAuth('?scope=demo:read', forwarded)).status).toBe(401);
  });

  it('requires the scopes of all tools of an MCP route, since it has no body to inspect', async () => {
    const forwarded = { 'x-forwarded-method': 'POST', 'x-forwarded-uri': '/tools/mcp' };
    const reader = s.authority.issue({ scopes });
    const writer = s.authority.issue({ scopes: ['demo:read', 'demo:write'] });
    expect((await forwardAuth('', { ...bearer(reader.secret), ...forwarded })).status).toBe(403);
    expect((await forwardAuth('', { ...bearer(writer.secret), ...forwarded })).status).toBe(204);
  });

  it('refuses a mistyped configuration, and a token in the query', async () => {
    const { secret } = s.authority.issue({ scopes });
    for (const query of ['?scope=nonsense', '?scope=', '?project=x', '?scopes=demo:read', `?access_token=${secret}`])
      expect([query, (await forwardAuth(query, bearer(secret))).status]).toEqual([query, 400]);
  });

  it('refuses two Authorization headers', async () => {
    const { secret } = s.authority.issue({ scopes });
    const line = `Authorization: Bearer ${secret}\r\n`;
    const response = await raw(
      s.gateway.opsPort,
      `GET /forward-auth HTTP/1.1\r\nHost: x\r\n${line}${line}Connection: close\r\n\r\n`,
    );
    expect(response.status).toBe(400);
  });

  it('responds 503 with Retry-After, never 401, when the token cannot be checked', async () => {
    await using unavailable = await stack(routes, {}, (authority) => {
      authority.close();
    });
    const { secret } = unavailable.authority.issue({ scopes });
    const response = await forwardAuth('', bearer(secret), unavailable.gateway.opsPort);
    expect([response.status, response.headers['retry-after']]).toEqual([503, '1']);
  });

  it('responds 503 with Retry-After to a token from before an unsettled restore', async () => {
    const response = await forwardAuth('', bearer(s.authority.issue({ denial: 'restored' }).secret));
    expect([response.status, response.headers['retry-after'], JSON.parse(response.body).code]).toEqual([
      503,
      '1',
      'restored',
    ]);
  });

  it('trusts the forwarded method and path only from FORWARD_AUTH_PEERS', async () => {
    await using other = await stack(routes, { FORWARD_AUTH_PEERS: '10.0.0.0/8' });
    const { secret } = other.authority.issue({ scopes });
    const port = other.gateway.opsPort;
    const forwarded = { 'x-forwarded-method': 'GET', 'x-forwarded-uri': '/docs/x' };
    expect((await forwardAuth('', forwarded, port)).status).toBe(401);
    const response = await forwardAuth('', { ...forwarded, ...bearer(secret) }, port);
    expect(response.status).toBe(403);
    expect(response.body).toContain('FORWARD_AUTH_PEERS');
    expect((await forwardAuth('', bearer(secret), port)).status).toBe(204);
  });
});

type Check = (request: object, done: (error: ServiceError | null, response: Checked) => void) => void;
interface Checked {
  status: { code: number };
  deniedResponse?: { status: { code: number }; headers: Option[]; body: string } | null;
  okResponse?: { headers: Option[]; headersToRemove: string[] } | null;
}
interface Option {
  header: { key: string; value: string };
  appendAction: string;
}

describe('ext-authz', () => {
  let client: { Check: Check; close(): void };
  beforeAll(() => {
    const loaded = loadPackageDefinition(loadSync(EXT_AUTHZ_PROTO_FILE, PROTO_OPTIONS)) as unknown as {
      envoy: { service: { auth: { v3: { Authorization: new (address: string, c: object) => typeof client } } } };
    };
    const { Authorization } = loaded.envoy.service.auth.v3;
    client = new Authorization(`127.0.0.1:${s.gateway.authzPort}`, credentials.createInsecure());
  });
  afterAll(() => client.close());

  const check = (method: string, path: string, headers: Record<string, string>, extensions = {}) =>
    new Promise<Checked>((resolve, reject) => {
      const source = { address: { socketAddress: { address: '203.0.113.9' } } };
      const http = { id: '1', method, path, headers };
      client.Check({ attributes: { source, request: { http }, contextExtensions: extensions } }, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
  const headerIn = (options: Option[], key: string) => options.find(({ header }) => header.key === key)?.header.value;

  it('allows a valid token and overwrites identity headers from the caller', async () => {
    const { secret, snapshot } = s.authority.issue({ scopes });
    const spoofed = { 'x-latchkey-owner': 'user:me', x_latchkey_owner: 'user:me' };
    const response = await check('GET', '/read/x', { authorization: `Bearer ${secret}`, ...spoofed });
    expect(response.status.code).toBe(0);
    const { headers, headersToRemove } = response.okResponse!;
    expect(headerIn(headers, 'x-latchkey-owner')).toBe(`user:${snapshot.ownerId}`);
    expect(headerIn(headers, 'x-latchkey-project')).toBe('');
    expect(new Set(headers.map(({ appendAction }) => appendAction))).toEqual(new Set(['OVERWRITE_IF_EXISTS_OR_ADD']));
    expect(headersToRemove.sort()).toEqual(['authorization', 'x_latchkey_owner']);
  });

  it('keeps Authorization where the route is configured so', async () => {
    const { secret } = s.authority.issue({ scopes });
    const response = await check('GET', '/passing/x', { authorization: `Bearer ${secret}` });
    expect(response.okResponse!.headersToRemove).toEqual([]);
  });

  it('denies with status, challenge and problem details', async () => {
    const response = await check('GET', '/read/x', {});
    expect(response.status.code).toBe(16);
    expect(response.deniedResponse!.status.code).toBe(401);
    expect(headerIn(response.deniedResponse!.headers, 'www-authenticate')).toBe('Bearer realm="latchkey"');
    expect(JSON.parse(response.deniedResponse!.body)).toMatchObject({ code: 'unauthenticated' });
  });

  it('denies a token from before an unsettled restore as UNAVAILABLE, with 503', async () => {
    const { secret } = s.authority.issue({ denial: 'restored' });
    const response = await check('GET', '/read/x', { authorization: `Bearer ${secret}` });
    expect([response.status.code, response.deniedResponse!.status.code]).toEqual([14, 503]);
    expect(headerIn(response.deniedResponse!.headers, 'retry-after')).toBe('1');
    expect(headerIn(response.deniedResponse!.headers, 'www-authenticate')).toBeUndefined();
    expect(JSON.parse(response.deniedResponse!.body)).toMatchObject({ code: 'restored' });
  });

  it("enforces the routes file, the context extensions and a token's address ranges", async () => {
    const { secret } = s.authority.issue({ scopes });
    const authorization = { authorization: `Bearer ${secret}` };
    expect((await check('GET', '/read/x', authorization, { scope: 'demo:write' })).status.code).toBe(7);
    expect((await check('GET', '/read/x', authorization, { scope: 'demo:read' })).status.code).toBe(0);
    expect((await check('GET', `/demo/projects/${project}/x`, authorization)).status.code).toBe(7);
    expect((await check('GET', '/read/%2e%2e/x', authorization)).status.code).toBe(3);
    const bound = s.authority.issue({ scopes, allowedIps: ['203.0.113.0/24'] });
    const elsewhere = s.authority.issue({ scopes, allowedIps: ['198.51.100.0/24'] });
    expect((await check('GET', '/read/x', { authorization: `Bearer ${bound.secret}` })).status.code).toBe(0);
    expect((await check('GET', '/read/x', { authorization: `Bearer ${elsewhere.secret}` })).status.code).toBe(7);
  });
});

describe("the gateway's own whoami", () => {
  const whoami = async (headers: Record<string, string>) => {
    const response = await request(`${s.gateway.url}/gateway/whoami`, { headers });
    return { status: response.statusCode, headers: response.headers, body: (await response.body.json()) as object };
  };

  it('returns the principal', async () => {
    const { secret, snapshot } = s.authority.issue({ scopes });
    const response = await whoami(bearer(secret));
    expect(response.status).toBe(200);
    expect(response.body).toEqual({
      tokenId: snapshot.id,
      kind: 'pat',
      owner: { type: 'user', id: snapshot.ownerId },
      project: null,
      scopes,
      expiresAt: null,
      rateLimit: null,
    });
  });

  it('responds 503 without a challenge to a token from before an unsettled restore', async () => {
    const response = await whoami(bearer(s.authority.issue({ denial: 'restored' }).secret));
    expect([response.status, response.headers['retry-after'], response.headers['www-authenticate']]).toEqual([
      503,
      '1',
      undefined,
    ]);
    expect(response.body).toMatchObject({ code: 'restored' });
  });

  it('responds as RFC 6750 specifies: a plain challenge, invalid_token, invalid_request', async () => {
    const none = await whoami({});
    expect([none.status, none.headers['www-authenticate']]).toEqual([401, 'Bearer realm="latchkey"']);
    const bad = await whoami(bearer('lk_pat_nonsense'));
    expect([bad.status, bad.headers['www-authenticate']]).toEqual([401, expect.stringContaining('invalid_token')]);
    expect(bad.body).toMatchObject({ code: 'invalid_token', requestId: bad.headers['x-request-id'] });
    const malformed = await whoami({ authorization: 'Bearer a b' });
    expect(malformed.status).toBe(400);
  });
});
