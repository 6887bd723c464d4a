import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync } from 'node:zlib';
import { CALLER_ADDRESS_HEADER, GATEWAY_PROOF_HEADER, gatewayProofMatcher } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { request } from 'undici';
import { gatewayConfig } from '../src/config.js';
import { Peers } from '../src/handlers/peers.js';
import { CREDENTIALS, raw, type Stack, stack } from './stack.js';

const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-console-'));
const routes = (upstream: string) => `
routes:
  - { name: any, path: /any/*, upstream: "${upstream}", require: {} }
  - { name: everything, path: "/*", upstream: "${upstream}", public: true, trustedOrigin: true }
  - name: shared
    path: /shared/*
    upstream: ${upstream}
    require: { scopes: { GET: [demo:read], POST: [demo:write] } }
    cors: { origins: ["https://app.example"], headers: [X-Extra] }
`;
let s: Stack;
beforeAll(async () => {
  mkdirSync(path.join(dir, 'assets'));
  writeFileSync(path.join(dir, 'index.html'), '<!doctype html><title>console</title>');
  writeFileSync(path.join(dir, 'assets', 'index-Ab3dE6gH.js'), 'console.log(1)');
  writeFileSync(path.join(dir, 'assets', 'index-Ab3dE6gH.js.br'), brotliCompressSync('console.log(1)'));
  writeFileSync(path.join(dir, 'assets', 'index-Ab3dE6gH.js.gz'), gzipSync('console.log(1)'));
  writeFileSync(path.join(dir, 'secret.env'), 'SECRET=1');
  s = await stack(routes, { CONSOLE_DIR: dir, TRUSTED_PROXIES: '127.0.0.0/8' });
});
afterAll(async () => {
  await s[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});
beforeEach(() => {
  s.api.seen.length = 0;
  s.upstream.seen.length = 0;
  s.api.handler = (_req, res) => res.writeHead(200, { 'set-cookie': 'latchkey_session=new; HttpOnly' }).end('api');
  s.upstream.handler = (_req, res) => res.writeHead(200, { 'access-control-allow-origin': '*' }).end('ok');
});

async function call(
  at: string,
  options: { method?: 'GET' | 'POST' | 'OPTIONS' | 'HEAD'; headers?: Record<string, string>; body?: string } = {},
) {
  const response = await request(`${s.gateway.url}${at}`, options);
  return { status: response.statusCode, headers: response.headers, body: await response.body.text() };
}

describe('the management API', () => {
  it.each(['/v1/tokens?limit=1', '/oauth2/introspect', '/mcp'])(
    'at %s is forwarded to the token-service unchanged, with proof of the gateway',
    async (at) => {
      const headers = {
        authorization: 'Bearer abc',
        cookie: 'latchkey_session=s3cret',
        'content-type': 'application/json',
      };
      const response = await call(at, {
        method: 'POST',
        headers: {
          ...headers,
          [GATEWAY_PROOF_HEADER]: 'forged',
          x_latchkey_door: 'forged',
          [CALLER_ADDRESS_HEADER]: '192.0.2.1',
          'x-forwarded-for': '203.0.113.9, 127.0.0.2',
        },
        body: '{}',
      });
      expect(response).toMatchObject({
        status: 200,
        body: 'api',
        headers: { 'set-cookie': 'latchkey_session=new; HttpOnly' },
      });
      expect(response.headers['content-security-policy']).toBeUndefined();
      expect(s.api.seen[0]).toMatchObject({ method: 'POST', url: at });
      expect(s.api.lastHeader('authorization')).toBe('Bearer abc');
      expect(s.api.lastHeader('cookie')).toBe('latchkey_session=s3cret');
      expect(gatewayProofMatcher([CREDENTIALS.GATEWAY_PROOF_SECRET])(s.api.lastHeader(GATEWAY_PROOF_HEADER)!)).toBe(
        true,
      );
      expect(s.api.seen[0]!.headers.join()).not.toContain('forged');
      expect(s.api.lastHeader('x-forwarded-for')).toBe('203.0.113.9, 127.0.0.2, 127.0.0.1');
      expect(s.api.seen[0]!.headers.join()).not.toContain('192.0.2.1');
      expect(s.api.lastHeader(CALLER_ADDRESS_HEADER)).toBe('203.0.113.9');
      expect(s.api.lastHeader('x-request-id')).toBe(response.headers['x-request-id']);
      expect(s.upstream.seen).toEqual([]);
    },
  );

  it('is 503 with Retry-After while the token-service is unavailable', async () => {
    s.api.handler = (req) => req.socket.destroy();
    const response = await call('/v1/tokens');
    expect([response.status, response.headers['retry-after'], JSON.parse(response.body).code]).toEqual([
      503,
      '1',
      'unavailable',
    ]);
  });

  it('is not reached by a path that only resembles it', async () => {
    for (const at of ['/v1x', '/V1/tokens', '/mcpx']) await call(at);
    expect(s.api.seen).toEqual([]);
    expect(
      (await raw(s.gateway.port, 'GET /v1/../v1/tokens HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n')).status,
    ).toBe(400);
    await call('/%76%31/tokens');
    expect(s.api.seen.map(({ url }) => url)).toEqual(['/v1/tokens']);
  });
});

describe('behind a trusted proxy', () => {
  it('the address is the last one that is not trusted, and the request keeps its id and scheme', async () => {
    const { secret } = s.authority.issue({ allowedIps: ['203.0.113.0/24'] });
    const as = (forwardedFor: string) =>
      call('/any/x', {
        headers: {
          authorization: `Bearer ${secret}`,
          'x-forwarded-for': forwardedFor,
          'x-forwarded-proto': 'https',
          'x-forwarded-host': 'api.example',
          'x-request-id': 'edge-1',
        },
      });
    const response = await as('10.0.0.1, 203.0.113.9');
    expect([response.status, response.headers['x-request-id']]).toEqual([200, 'edge-1']);
    expect(s.upstream.lastHeader('x-forwarded-proto')).toBe('https');
    expect(s.upstream.lastHeader('x-forwarded-host')).toBe('api.example');
    expect((await as('203.0.113.9:4711, 127.0.0.5')).status).toBe(200);
    // What a caller sends itself is further left, and is ignored.
    const spoofed = await as('203.0.113.9, 198.51.100.1');
    expect([spoofed.status, JSON.parse(spoofed.body).code]).toEqual([403, 'address_not_allowed']);
    expect((await as('203.0.113.9, nonsense')).status).toBe(403);
  });
});

it.each<[networks: string[], address: string, expected: boolean]>([
  [[], '10.0.0.1', false],
  [['10.0.0.0/8', '::1'], '10.0.0.1', true],
  [['10.0.0.0/8', '::1'], '::1', true],
  [['10.0.0.0/8', '::1'], '', false],
  [['::/0'], '10.0.0.1', false],
  [['::ffff:10.0.0.0/104'], '10.0.0.1', true],
])('by %j, is %s a trusted proxy and a forward-auth peer: %p', (networks, address, expected) => {
  expect(new Peers(networks, []).isTrustedProxy(address)).toBe(expected);
  expect(new Peers([], networks).isForwardAuthPeer(address)).toBe(expected);
});

describe('the console', () => {
  it('is at / with a strict Content-Security-Policy', async () => {
    const response = await call('/');
    expect(response).toMatchObject({
      status: 200,
      body: '<!doctype html><title>console</title>',
      headers: {
        'content-type': 'text/html; charset=utf-8',
        'cache-control': 'no-cache',
        'x-content-type-options': 'nosniff',
      },
    });
    expect(response.headers['content-security-policy']).toMatch(
      /^default-src 'none'; script-src 'self';.*frame-ancestors 'none'$/,
    );
    expect((await call('/', { headers: { 'if-none-match': String(response.headers['etag']) } })).status).toBe(304);
    expect(await call('/', { method: 'HEAD' })).toMatchObject({ status: 200, body: '' });
    expect((await call('/', { method: 'POST' })).status).toBe(405);
  });

  it('has hashed files cached as immutable, and a route cannot replace them', async () => {
    const response = await call('/assets/index-Ab3dE6gH.js');
    expect(response).toMatchObject({
      status: 200,
      body: 'console.log(1)',
      headers: {
        'cache-control': 'public, max-age=31536000, immutable',
        'content-type': 'text/javascript; charset=utf-8',
      },
    });
    expect(s.upstream.seen).toEqual([]);
  });

  it.each([
    ['gzip, deflate, br', 'br'],
    ['gzip', 'gzip'],
    ['br;q=0, gzip;q=0.5', 'gzip'],
    ['identity', undefined],
  ])('responds to Accept-Encoding: %s with a precompressed file: %s', async (accepted, coding) => {
    const at = `${s.gateway.url}/assets/index-Ab3dE6gH.js`;
    const response = await request(at, { headers: { 'accept-encoding': accepted } });
    expect(response.headers).toMatchObject({
      vary: 'Accept-Encoding',
      'content-type': 'text/javascript; charset=utf-8',
    });
    expect(response.headers['content-encoding']).toBe(coding);
    const body = Buffer.from(await response.body.arrayBuffer());
    expect(response.headers['content-length']).toBe(String(body.length));
    const open = { br: brotliDecompressSync, gzip: gunzipSync }[coding ?? ''] ?? ((bytes: Buffer) => bytes);
    expect(open(body).toString()).toBe('console.log(1)');
    const plain = await request(at);
    await plain.body.dump();
    expect(response.headers['etag'] === plain.headers['etag']).toBe(coding === undefined);
    const known = { 'accept-encoding': accepted, 'if-none-match': String(response.headers['etag']) };
    expect((await request(at, { headers: known })).statusCode).toBe(304);
  });

  it('serves only files of known types', async () => {
    expect((await call('/secret.env')).body).toBe('ok'); // from the route everything, not the file
  });

  it('that was not built is a page that links to the API', async () => {
    await using bare = await stack(() => 'routes: []');
    const response = await request(`${bare.gateway.url}/`);
    expect(response.statusCode).toBe(200);
    expect(await response.body.text()).toContain('/v1/docs');
  });
});

describe('cross-origin', () => {
  const preflight = (origin: string) =>
    call('/shared/x', { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST' } });

  it('preflights get a response from the gateway without a token', async () => {
    const response = await preflight('https://app.example');
    expect(response).toMatchObject({
      status: 204,
      headers: {
        'access-control-allow-origin': 'https://app.example',
        'access-control-allow-methods': 'GET, POST',
        'access-control-allow-headers': 'Authorization, Content-Type, X-Extra',
        vary: 'Origin',
      },
    });
    expect(s.upstream.seen).toEqual([]);
    expect((await preflight('https://evil.example')).headers['access-control-allow-origin']).toBeUndefined();
  });

  it("responses and errors have the route's origins, not the upstream's", async () => {
    const { secret } = s.authority.issue();
    const from = (origin: string, token = secret) =>
      call('/shared/x', { headers: { origin, authorization: `Bearer ${token}` } });
    expect((await from('https://app.example')).headers['access-control-allow-origin']).toBe('https://app.example');
    expect((await from('https://evil.example')).headers['access-control-allow-origin']).toBeUndefined();
    expect(await from('https://app.example', 'nonsense')).toMatchObject({
      status: 401,
      headers: { 'access-control-allow-origin': 'https://app.example' },
    });
  });
});

describe('the gateway', () => {
  it('serves health on both ports', async () => {
    for (const port of [s.gateway.port, s.gateway.opsPort]) {
      for (const at of ['healthz', 'readyz']) expect((await fetch(`http://127.0.0.1:${port}/${at}`)).status).toBe(200);
    }
  });

  it('omits the sandbox only where the route is trusted', async () => {
    expect((await call('/other')).headers['content-security-policy']).toBeUndefined();
    const { secret } = s.authority.issue();
    expect(
      (await call('/any/x', { headers: { authorization: `Bearer ${secret}` } })).headers['content-security-policy'],
    ).toBe('sandbox');
  });

  it('counts requests by route and status, and how long they took', async () => {
    await call('/other');
    const text = await (await fetch(`http://127.0.0.1:${s.gateway.opsPort}/metrics`)).text();
    expect(text).toMatch(/latchkey_gateway_requests_total\{route="everything",status="200",service="gateway"\} \d+/);
    expect(text).toMatch(/latchkey_gateway_request_seconds_bucket\{le="\+Inf",service="gateway"\} [1-9]/);
    expect(text).toMatch(/latchkey_verifier_verdicts_total\{outcome="allowed",service="gateway"\} \d+/);
    expect(text).not.toMatch(/lk_(pat|prj)_/);
  });

  it('uses new routes on reload, and keeps the previous ones when the new are invalid', async () => {
    await using other = await stack(
      (upstream) => `routes: [{ name: a, path: /a, upstream: "${upstream}", public: true }]`,
    );
    const status = async (at: string) => (await fetch(`${other.gateway.url}${at}`)).status;
    expect([await status('/a'), await status('/b')]).toEqual([200, 404]);
    other.writeRoutes('routes: [{ name: a }]');
    expect(await other.gateway.reload()).toHaveProperty('isInvalid', true);
    expect([await status('/a'), await status('/b')]).toEqual([200, 404]);
    other.writeRoutes(`routes: [{ name: b, path: /b, upstream: "${other.upstream.url}", public: true }]`);
    expect(await other.gateway.reload()).toHaveProperty('hash');
    expect([await status('/a'), await status('/b')]).toEqual([404, 200]);
  });

  it('finishes open requests when it stops, and accepts no new ones', async () => {
    await using other = await stack(
      (upstream) => `routes: [{ name: a, path: /a, upstream: "${upstream}", public: true }]`,
    );
    const reached = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    other.upstream.handler = (_req, res) => {
      reached.resolve();
      void released.promise.then(() => res.end('late'));
    };
    const response = fetch(`${other.gateway.url}/a`);
    await reached.promise;
    const stopped = other.gateway.stop();
    await waitFor(() =>
      fetch(`${other.gateway.url}/a`).then(
        () => false,
        () => true,
      ),
    );
    released.resolve();
    expect(await (await response).text()).toBe('late');
    await stopped;
  });

  it.each([
    [{ HOST: '0.0.0.0' }, /PUBLIC_URL is required because HOST is 0\.0\.0\.0/],
    [{ GATEWAY_RPC_SECRET: 'short' }, /GATEWAY_RPC_SECRET: each secret must have at least 32 characters/],
    [{ GATEWAY_PROOF_SECRET: '' }, /GATEWAY_PROOF_SECRET is required/],
    [{ TRUSTED_PROXIES: '10.0.0.0/33' }, /TRUSTED_PROXIES: must be IP addresses or CIDRs/],
    [{ TRUSTED_PROXIES: '::1,fe80::1%eth0' }, /TRUSTED_PROXIES: must be IP addresses or CIDRs/],
    [{ FORWARD_AUTH_PEERS: 'localhost' }, /FORWARD_AUTH_PEERS: must be/],
    [{ API_URL: 'token-service:8090' }, /API_URL: must be a URL/],
    [{ TOKEN_PREFIX: 'LK' }, /TOKEN_PREFIX: must be 1 to 16/],
  ])('refuses to start with %j, with the reason', (env, message) => {
    const config = () => gatewayConfig({ ...CREDENTIALS, ...(env as unknown as NodeJS.ProcessEnv) });
    expect(config).toThrow(message);
    expect(() => gatewayConfig({ GATEWAY_RPC_SECRET: 'short' })).not.toThrow(/short/);
  });
});
