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

async function ask(query: string, headers: Record<string, string>, port = s.gateway.opsPort) {
  const answer = await request(`http://127.0.0.1:${port}/forward-auth${query}`, { headers });
  return { status: answer.statusCode, headers: answer.headers, body: await answer.body.text() };
}
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

describe('forward-auth', () => {
  it('answers 204 and who calls', async () => {
    const { secret, facts } = s.authority.issue({ scopes });
    const answer = await ask('?scope=demo:read', bearer(secret));
    expect(answer.status).toBe(204);
    expect(answer.headers).toMatchObject({
      'x-latchkey-token-id': facts.id,
      'x-latchkey-owner': `user:${facts.ownerId}`,
      'x-latchkey-project': '',
      'x-latchkey-scopes': 'demo:read',
      'x-request-id': expect.any(String),
    });
  });

  it('asks for a token even when nothing else is asked for', async () => {
    const answer = await ask('', {});
    expect([answer.status, answer.headers['www-authenticate']]).toEqual([401, 'Bearer realm="latchkey"']);
    expect((await ask('', bearer('lk_pat_nonsense'))).status).toBe(401);
  });

  it("holds the query's scope and project", async () => {
    const { secret } = s.authority.issue({ scopes, grants: [{ project, scopes: ['demo:write'] }] });
    expect((await ask('?scope=demo:write', bearer(secret))).status).toBe(403);
    expect((await ask(`?scope=demo:write&project=${project}`, bearer(secret))).status).toBe(204);
    expect((await ask(`?scope=demo:read&project=${project}`, bearer(secret))).status).toBe(403);
    expect((await ask(`?project=${newId()}`, bearer(secret))).status).toBe(403);
    expect((await ask('?scope=demo:read%20demo:write', bearer(secret))).status).toBe(403);
  });

  it("holds the rules of the routes file for the forwarded method and path, together with the query's", async () => {
    const { secret } = s.authority.issue({ scopes, grants: [{ project, scopes }] });
    const forwarded = (method: string, uri: string) => ({
      ...bearer(secret),
      'x-forwarded-method': method,
      'x-forwarded-uri': uri,
    });
    const at = `/demo/projects/${project}/documents?limit=1`;
    expect((await ask('', forwarded('GET', at))).status).toBe(204);
    expect((await ask('', forwarded('GET', at))).headers['x-latchkey-project']).toBe(project);
    expect((await ask('', forwarded('POST', at))).status).toBe(403);
    expect((await ask('', forwarded('GET', `/demo/projects/${newId()}/documents`))).status).toBe(403);
    expect((await ask('?scope=demo:write', forwarded('GET', at))).status).toBe(403);
    expect((await ask('', forwarded('DELETE', '/read/x'))).status).toBe(403);
    expect((await ask('', forwarded('GET', '/read/../docs/x'))).status).toBe(400);
    expect((await ask('', forwarded('GET', '/docs/x?access_token=1'))).status).toBe(400);
    expect((await ask('', forwarded('GET', '/no/route'))).status).toBe(204);
  });

  it('lets a public route pass without a token, unless the query asks for something', async () => {
    const forwarded = { 'x-forwarded-method': 'GET', 'x-forwarded-uri': '/docs/x' };
    const open = await ask('', forwarded);
    expect([open.status, open.headers['x-latchkey-token-id']]).toEqual([204, '']);
    expect((await ask('?scope=demo:read', forwarded)).status).toBe(401);
  });

  it('asks for what any tool of an MCP route asks for, since it sees no body', async () => {
    const forwarded = { 'x-forwarded-method': 'POST', 'x-forwarded-uri': '/tools/mcp' };
    const reader = s.authority.issue({ scopes });
    const writer = s.authority.issue({ scopes: ['demo:read', 'demo:write'] });
    expect((await ask('', { ...bearer(reader.secret), ...forwarded })).status).toBe(403);
    expect((await ask('', { ...bearer(writer.secret), ...forwarded })).status).toBe(204);
  });

  it('refuses what its configuration mistypes, and a token in the query', async () => {
    const { secret } = s.authority.issue({ scopes });
    for (const query of ['?scope=nonsense', '?scope=', '?project=x', '?scopes=demo:read', `?access_token=${secret}`])
      expect([query, (await ask(query, bearer(secret))).status]).toEqual([query, 400]);
  });

  it('refuses two Authorization headers', async () => {
    const { secret } = s.authority.issue({ scopes });
    const line = `Authorization: Bearer ${secret}\r\n`;
    const answer = await raw(
      s.gateway.opsPort,
      `GET /forward-auth HTTP/1.1\r\nHost: x\r\n${line}${line}Connection: close\r\n\r\n`,
    );
    expect(answer.status).toBe(400);
  });

  it('answers 503 and Retry-After, never 401, when the token cannot be checked', async () => {
    await using away = await stack(routes, {}, (authority) => {
      authority.close();
    });
    const { secret } = away.authority.issue({ scopes });
    const answer = await ask('', bearer(secret), away.gateway.opsPort);
    expect([answer.status, answer.headers['retry-after']]).toEqual([503, '1']);
  });

  it('believes the forwarded method and path from its peers alone', async () => {
    await using other = await stack(routes, { FORWARD_AUTH_PEERS: '10.0.0.0/8' });
    const { secret } = other.authority.issue({ scopes });
    const port = other.gateway.opsPort;
    const forwarded = { 'x-forwarded-method': 'GET', 'x-forwarded-uri': '/docs/x' };
    expect((await ask('', forwarded, port)).status).toBe(401);
    const answer = await ask('', { ...forwarded, ...bearer(secret) }, port);
    expect(answer.status).toBe(403);
    expect(answer.body).toContain('FORWARD_AUTH_PEERS');
    expect((await ask('', bearer(secret), port)).status).toBe(204);
  });
});

type Check = (request: object, done: (error: ServiceError | null, answer: Checked) => void) => void;
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
      client.Check({ attributes: { source, request: { http }, contextExtensions: extensions } }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  const headerIn = (options: Option[], key: string) => options.find(({ header }) => header.key === key)?.header.value;

  it('lets a good token pass and sets who calls over what the caller says', async () => {
    const { secret, facts } = s.authority.issue({ scopes });
    const spoofed = { 'x-latchkey-owner': 'user:me', x_latchkey_owner: 'user:me' };
    const answer = await check('GET', '/read/x', { authorization: `Bearer ${secret}`, ...spoofed });
    expect(answer.status.code).toBe(0);
    const { headers, headersToRemove } = answer.okResponse!;
    expect(headerIn(headers, 'x-latchkey-owner')).toBe(`user:${facts.ownerId}`);
    expect(headerIn(headers, 'x-latchkey-project')).toBe('');
    expect(new Set(headers.map(({ appendAction }) => appendAction))).toEqual(new Set(['OVERWRITE_IF_EXISTS_OR_ADD']));
    expect(headersToRemove.sort()).toEqual(['authorization', 'x_latchkey_owner']);
  });

  it('leaves Authorization where the route says so', async () => {
    const { secret } = s.authority.issue({ scopes });
    const answer = await check('GET', '/passing/x', { authorization: `Bearer ${secret}` });
    expect(answer.okResponse!.headersToRemove).toEqual([]);
  });

  it('denies with status, challenge and problem', async () => {
    const answer = await check('GET', '/read/x', {});
    expect(answer.status.code).toBe(16);
    expect(answer.deniedResponse!.status.code).toBe(401);
    expect(headerIn(answer.deniedResponse!.headers, 'www-authenticate')).toBe('Bearer realm="latchkey"');
    expect(JSON.parse(answer.deniedResponse!.body)).toMatchObject({ code: 'unauthenticated' });
  });

  it("holds the routes file's and the extensions' conditions, and the addresses of a token", async () => {
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
    const answer = await request(`${s.gateway.url}/gateway/whoami`, { headers });
    return { status: answer.statusCode, headers: answer.headers, body: (await answer.body.json()) as object };
  };

  it('tells the principal', async () => {
    const { secret, facts } = s.authority.issue({ scopes });
    const answer = await whoami(bearer(secret));
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      tokenId: facts.id,
      kind: 'pat',
      owner: { type: 'user', id: facts.ownerId },
      project: null,
      scopes,
      expiresAt: null,
      rateLimit: null,
    });
  });

  it('answers as RFC 6750 says: a plain challenge, invalid_token, invalid_request', async () => {
    const none = await whoami({});
    expect([none.status, none.headers['www-authenticate']]).toEqual([401, 'Bearer realm="latchkey"']);
    const bad = await whoami(bearer('lk_pat_nonsense'));
    expect([bad.status, bad.headers['www-authenticate']]).toEqual([401, expect.stringContaining('invalid_token')]);
    expect(bad.body).toMatchObject({ code: 'invalid_token', requestId: bad.headers['x-request-id'] });
    const torn = await whoami({ authorization: 'Bearer a b' });
    expect(torn.status).toBe(400);
  });
});
