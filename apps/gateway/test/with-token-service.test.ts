import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { REDIS } from '@latchkey/contracts';
import {
  freePorts,
  type RunningService,
  spawnService,
  type TestDatabase,
  type TestRedis,
  testCredentials,
  testDatabase,
  testRedis,
  waitFor,
} from '@latchkey/testing';
import { Redis } from 'ioredis';
import { TestUpstream } from './stack.js';

const run = promisify(execFile);
const tokenService = path.join(import.meta.dirname, '../../token-service/dist');
const gatewayEntry = path.join(import.meta.dirname, '../dist/main.js');
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-whole-'));
const routesFile = path.join(dir, 'gateway.yaml');
const credentials = testCredentials();
const ADMIN = { email: 'admin@example.org', password: 'the first administrator' };

let database: TestDatabase;
let redis: TestRedis;
let upstream: TestUpstream;
let authority: RunningService;
let gateways: RunningService[];
let ports: number[];
let urls: string[];
let cookie: string;

const gatewayEnv = (port: number, ops: number, authz: number) => ({
  PORT: String(port),
  OPS_PORT: String(ops),
  AUTHZ_PORT: String(authz),
  RPC_ADDRESS: `127.0.0.1:${ports[1]}`,
  API_URL: `http://127.0.0.1:${ports[0]}`,
  ...credentials.gateway,
  REDIS_URL: redis.url,
  GATEWAY_CONFIG: routesFile,
  CONSOLE_DIR: path.join(dir, 'console'),
  LOG_LEVEL: 'info',
  GATEWAY_PROCESSES: '2',
});
const routes = (more = '') => `
routes:
  - { name: read, path: /read/*, upstream: "${upstream.url}", require: { scopes: { GET: [demo:read], "*": [demo:write] } } }
  - name: project
    path: /projects/{project}/*
    upstream: ${upstream.url}
    require: { project: "{project}", scopes: { "*": [demo:read] } }
${more}`;

beforeAll(async () => {
  [database, redis] = [await testDatabase(), await testRedis()];
  upstream = new TestUpstream();
  await upstream.listen();
  ports = await freePorts(9);
  writeFileSync(routesFile, routes());
  await run(process.execPath, [path.join(tokenService, 'migrate.js')], {
    env: { PATH: process.env['PATH'], DATABASE_URL: database.url },
  });
  const service = new URL(database.url);
  service.searchParams.set('options', '-c role=latchkey_service');
  const signingKey = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
  authority = await spawnService(
    path.join(tokenService, 'main.js'),
    {
      DATABASE_URL: service.href,
      REDIS_URL: redis.url,
      API_PORT: String(ports[0]),
      RPC_PORT: String(ports[1]),
      OPS_PORT: String(ports[2]),
      TOKEN_PEPPERS: 'pepper-of-the-whole-0123456789abcdef0123',
      ...credentials.tokenService,
      EVENTS_SECRET: 'events-secret-of-the-whole-0123456789abc',
      EVENTS_SIGNING_KEY: 'events-signing-key-of-the-whole-0123456789',
      USAGE_SECRET: 'usage-secret-of-the-whole-0123456789abcd',
      AUDIT_SIGNING_KEY: signingKey.toString(),
      SCOPES_FILE: path.join(import.meta.dirname, '../../../infra/scopes.yaml'),
      ADMIN_EMAIL: ADMIN.email,
      ADMIN_PASSWORD: ADMIN.password,
      LEASE_MS: '3000',
      LOG_LEVEL: 'warn',
    },
    { readyUrl: `http://127.0.0.1:${ports[2]}/readyz`, readyTimeoutMs: 60_000 },
  );
  gateways = await Promise.all(
    [3, 6].map((i) =>
      spawnService(gatewayEntry, gatewayEnv(ports[i]!, ports[i + 1]!, ports[i + 2]!), {
        readyUrl: `http://127.0.0.1:${ports[i]}/readyz`,
        // Once all of its processes listen.
        readyText: 'gateway listening',
        readyTimeoutMs: 60_000,
      }),
    ),
  );
  urls = [3, 6].map((i) => `http://127.0.0.1:${ports[i]}`);
  const signedIn = await manage('POST', '/v1/session', ADMIN);
  expect(signedIn.status).toBe(200);
  cookie = signedIn.headers.getSetCookie()[0]!.split(';', 1)[0]!;
}, 180_000);

afterAll(async () => {
  await Promise.all([...(gateways ?? []), authority].map((service) => service?.stop()));
  await upstream?.close();
  await Promise.all([database?.close(), redis?.close()]);
  rmSync(dir, { recursive: true, force: true });
});

/** The management API, through the first gateway. */
const manage = (method: string, at: string, body?: object) =>
  fetch(`${urls?.[0] ?? `http://127.0.0.1:${ports[3]}`}${at}`, {
    method,
    headers: { ...(cookie ? { cookie } : {}), ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });

async function issue(more: object = {}): Promise<{ id: string; secret: string }> {
  const response = await manage('POST', '/v1/tokens', { name: 'test', scopes: ['demo:read'], ...more });
  expect(response.status).toBe(201);
  return (await response.json()) as { id: string; secret: string };
}
const use = async (secret: string, url = urls[0]!, at = '/read/x', method = 'GET') => {
  const response = await fetch(`${url}${at}`, { method, headers: { authorization: `Bearer ${secret}` } });
  await response.arrayBuffer();
  return response;
};

describe('with the real token-service, PostgreSQL and Redis', () => {
  it('a token issued through the gateway is accepted at every gateway, within its scopes', async () => {
    const { id, secret } = await issue();
    for (const url of urls) {
      expect((await use(secret, url)).status).toBe(200);
      expect((await use(secret, url, '/read/x', 'POST')).status).toBe(403);
    }
    expect(upstream.lastHeader('x-latchkey-token-id')).toBe(id);
  });

  it('refuses a revoked token at every gateway once the revocation has returned', async () => {
    for (let round = 0; round < 10; round++) {
      const { id, secret } = await issue();
      await Promise.all(urls.map((url) => use(secret, url)));
      let revoked = false;
      const late: number[] = [];
      const callers = Array.from({ length: 6 }, async (_, i) => {
        for (let after = 0; after < 5; ) {
          // Read before the check starts: an earlier check can still be allowed.
          const wasRevoked = revoked;
          const { status } = await use(secret, urls[i % 2]);
          if (wasRevoked) after++;
          if (wasRevoked && status === 200) late.push(status);
        }
      });
      const response = await manage('POST', `/v1/tokens/${id}/revoke`, { reason: 'exposed' });
      expect([response.status, ((await response.json()) as { effective: boolean }).effective]).toEqual([200, true]);
      revoked = true;
      await Promise.all(callers);
      expect(late).toEqual([]);
    }
  });

  it('waits with a revocation for every process of every gateway', async () => {
    const { id } = await issue();
    const response = await manage('POST', `/v1/tokens/${id}/revoke`, {});
    const { effective, receipt } = (await response.json()) as {
      effective: boolean;
      receipt: { verifiers: { name: string }[] };
    };
    const names = [3, 6].flatMap((i) => [1, 2].map((n) => `${ports[i]}/${n}`));
    expect(effective).toBe(true);
    expect(receipt.verifiers.map(({ name }) => name.replace(/^.*:/, '')).sort()).toEqual(names.sort());
  });

  it('a project token is accepted only in its project', async () => {
    const make = async (name: string) =>
      ((await (await manage('POST', '/v1/projects', { name })).json()) as { id: string }).id;
    const [own, other] = [await make('own'), await make('other')];
    const { secret } = await issue({ kind: 'prj', projectId: own });
    expect((await use(secret, urls[0], `/projects/${own}/x`)).status).toBe(200);
    expect(upstream.lastHeader('x-latchkey-project')).toBe(own);
    expect((await use(secret, urls[0], `/projects/${other}/x`)).status).toBe(403);
  });

  it('accepts tokens while Redis is killed, and refuses a revoked one once the revocation has returned', async () => {
    const { id, secret } = await issue();
    expect((await use(secret)).status).toBe(200);
    await redis.kill();
    expect((await use(secret)).status).toBe(200);
    const response = await manage('POST', `/v1/tokens/${id}/revoke`, {});
    expect(await response.json()).toMatchObject({ effective: true });
    for (const url of urls) expect((await use(secret, url)).status).toBe(401);
    await redis.restart();
  });

  it('sends usage that adds up to the number of requests', async () => {
    const client = new Redis(redis.url);
    const { id, secret } = await issue();
    await Promise.all(Array.from({ length: 30 }, (_, i) => use(secret, urls[i % 2])));
    const count = async () => {
      const entries = await client.xrange(REDIS.usage, '-', '+');
      const lines = entries.flatMap(([, fields]) => JSON.parse(fields[fields.indexOf('body') + 1]!).lines);
      return lines.filter(({ tokenId }) => tokenId === id).reduce((sum, line) => sum + line.count, 0);
    };
    await waitFor(async () => (await count()) === 30, { timeoutMs: 20_000 });
    client.disconnect();
  });

  it('uses new routes on SIGHUP, keeps the previous ones when they are invalid, and stops in order on SIGTERM', async () => {
    const { secret } = await issue();
    const status = async () => (await use(secret, urls[1], '/new/x')).status;
    writeFileSync(routesFile, 'routes: nonsense');
    process.kill(gateways[1]!.pid, 'SIGHUP');
    await waitFor(() => gateways[1]!.logs().includes('reloading the routes failed'));
    expect([(await use(secret, urls[1])).status, await status()]).toEqual([200, 404]);
    writeFileSync(routesFile, routes(`  - { name: new, path: /new/*, upstream: "${upstream.url}", require: {} }`));
    process.kill(gateways[1]!.pid, 'SIGHUP');
    await waitFor(async () => (await status()) === 200);
    process.kill(gateways[1]!.pid, 'SIGTERM');
    expect(await gateways[1]!.exited).toEqual({ code: 0, signal: null });
  });

  it('refuses to start with an invalid routes file, with line and reason', async () => {
    writeFileSync(routesFile, 'routes:\n  - name: a\n    colour: red\n');
    const [port, ops, authz] = await freePorts(3);
    const failure = await run(process.execPath, [gatewayEntry], {
      env: { PATH: process.env['PATH'], ...gatewayEnv(port!, ops!, authz!) },
    }).catch((error: { code: number; stdout: string }) => error);
    expect((failure as { code: number }).code).toBe(1);
    expect(failure.stdout).toContain('gateway.yaml:3: routes[0].colour: is not a known setting');
  });
});
