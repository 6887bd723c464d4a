import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { jest } from '@jest/globals';
import { firstParty } from '@latchkey/runtime';
import {
  freePorts,
  type RunningService,
  selfSigned,
  spawnService,
  type TestRedis,
  testCredentials,
  testRedis,
  waitFor,
} from '@latchkey/testing';
import { Authority } from './authority.js';
import { TestUpstream } from './stack.js';

const entry = path.join(import.meta.dirname, '../dist/main.js');
const BUSY = { timeoutMs: 60_000 };
jest.setTimeout(120_000);

const sha256 = (...parts: string[]) => createHash('sha256').update(parts.join('')).digest('hex').slice(0, 16);

let redis: TestRedis;
let authority: Authority;
let upstream: TestUpstream;
beforeAll(async () => {
  [redis, authority, upstream] = [await testRedis(), await Authority.start(), new TestUpstream()];
  await upstream.listen();
});
afterAll(async () => {
  authority.close();
  await Promise.all([upstream.close(), redis.close()]);
});

/** A gateway in processes of its own, whose routes are a folder that a link leads to. */
async function gatewayOf(processes: number) {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-reload-'));
  const [port, opsPort, authzPort] = (await freePorts(3)) as [number, number, number];
  let folders = 0;
  const text = (...names: string[]) =>
    `routes:\n${names.map((name) => `  - { name: ${name}, path: /${name}, upstream: "${upstream.url}", public: true }\n`).join('')}`;
  /** Replaces all files at once. */
  const publish = (files: Record<string, string>) => {
    const folder = `files-${++folders}`;
    mkdirSync(path.join(dir, folder));
    for (const [name, content] of Object.entries(files)) writeFileSync(path.join(dir, folder, name), content);
    symlinkSync(folder, path.join(dir, 'next'));
    renameSync(path.join(dir, 'next'), path.join(dir, 'now'));
  };
  publish({ 'gateway.yaml': text('a') });
  const { GATEWAY_RPC_SECRET, ...credentials } = testCredentials().gateway;
  const secretFile = path.join(dir, 'rpc_secret');
  writeFileSync(secretFile, GATEWAY_RPC_SECRET);
  const gateway: RunningService = await spawnService(
    entry,
    {
      GATEWAY_PROCESSES: `${processes}`,
      PORT: `${port}`,
      OPS_PORT: `${opsPort}`,
      AUTHZ_PORT: `${authzPort}`,
      RPC_ADDRESS: authority.address,
      ...credentials,
      GATEWAY_RPC_SECRET_FILE: secretFile,
      REDIS_URL: redis.url,
      GATEWAY_CONFIG: path.join(dir, 'now', 'gateway.yaml'),
      CONSOLE_DIR: dir,
      SHUTDOWN_DELAY_MS: '0',
    },
    { readyText: 'gateway listening', readyTimeoutMs: 60_000 },
  );
  const ops = `http://127.0.0.1:${opsPort}`;
  return {
    file: path.join(dir, 'now', 'gateway.yaml'),
    secretFile,
    text,
    publish,
    status: async (at: string) => (await fetch(`http://127.0.0.1:${port}${at}`)).status,
    reload: async (init: RequestInit = {}) => {
      const response = await fetch(`${ops}/reload`, { method: 'POST', ...init });
      return { status: response.status, body: (await response.json()) as Record<string, string> };
    },
    metrics: async (start = 'latchkey_gateway_routes') =>
      (await (await fetch(`${ops}/metrics`)).text()).split('\n').filter((line) => line.startsWith(start)),
    ready: async () => (await fetch(`${ops}/readyz`)).json(),
    publicReady: async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).text(),
    lines: (message: string) =>
      gateway
        .logs()
        .split('\n')
        .filter((line) => line.includes(`"msg":"${message}`))
        .map((line) => JSON.parse(line)),
    async [Symbol.asyncDispose]() {
      await gateway.stop(20_000);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

const info = (hash: string) =>
  expect.stringMatching(new RegExp(`^latchkey_gateway_routes_info\\{hash="${hash}",.*\\} 1$`));
const failed = (value: number) =>
  expect.stringMatching(new RegExp(`^latchkey_gateway_routes_reload_failed\\{.*\\} ${value}$`));

/** One of a single process, and one of several. */
let gateways: Awaited<ReturnType<typeof gatewayOf>>[];
beforeAll(async () => {
  gateways = await Promise.all([gatewayOf(1), gatewayOf(2)]);
});
afterAll(async () => void (await Promise.all(gateways.map((g) => g[Symbol.asyncDispose]()))));
const each = (check: (g: (typeof gateways)[number]) => Promise<void>) => Promise.all(gateways.map(check));

it('uses replaced files by itself, in all processes, and says by their hash which', () =>
  each(async (g) => {
    expect(g.lines('gateway listening')).toEqual([expect.objectContaining({ routesHash: sha256(g.text('a')) })]);
    const [ca, other] = [selfSigned().cert, selfSigned().cert];
    const withCa = `${g.text('a', 'b')}  - { name: s, path: /s, upstream: "https://127.0.0.1:1", public: true, tls: { ca: ca.pem } }\n`;
    g.publish({ 'gateway.yaml': withCa, 'ca.pem': ca });
    await waitFor(async () => (await g.metrics()).some((line) => line.includes(sha256(withCa, ca))), BUSY);
    for (let i = 0; i < 10; i++) expect(await g.status('/b')).toBe(200);
    // A change of nothing but a file that is named.
    g.publish({ 'gateway.yaml': withCa, 'ca.pem': other });
    await waitFor(async () => (await g.metrics()).some((line) => line.includes(sha256(withCa, other))), BUSY);
    await waitFor(async () => (await g.metrics()).length === 2, BUSY);
    expect(await g.metrics()).toEqual(expect.arrayContaining([info(sha256(withCa, other)), failed(0)]));
    expect(g.lines('routes reloaded').map(({ routesHash }) => routesHash)).toEqual([
      sha256(withCa, ca),
      sha256(withCa, other),
    ]);
  }));

it('keeps its routes when the files are wrong, and says why: once in the log, in a metric, and as a warning', () =>
  each(async (g) => {
    g.publish({ 'gateway.yaml': g.text('a') });
    const { body } = await g.reload();
    g.publish({ 'gateway.yaml': 'routes:\n  - { name: a, path: /a }\n' });
    await waitFor(() => g.lines('reloading the routes failed').length > 0, BUSY);
    const reason = expect.stringContaining('gateway.yaml:2: ');
    expect(g.lines('reloading the routes failed')).toEqual([expect.objectContaining({ level: 'error', reason })]);
    expect(await g.metrics()).toEqual(expect.arrayContaining([info(body['hash']!), failed(1)]));
    expect(await g.ready()).toMatchObject({ status: 'ready', warnings: { routes: reason } });
    expect(await g.publicReady()).toMatch(/"warnings":\{"routes":"a changed file is not in use/);
    expect(await g.status('/a')).toBe(200);
    expect(await g.reload()).toEqual({
      status: 422,
      body: expect.objectContaining({ code: 'reload_failed', detail: reason }),
    });
    g.publish({ 'gateway.yaml': g.text('a') });
    expect((await g.reload()).body['hash']).toBe(body['hash']);
    expect(await g.ready()).not.toHaveProperty('warnings');
  }));

it('reads the files at once when asked with POST /reload, not by a page in a browser', () =>
  each(async (g) => {
    writeFileSync(g.file, g.text('d'));
    const { status, body } = await g.reload();
    expect([status, body]).toEqual([200, { reloaded: true, hash: sha256(readFileSync(g.file, 'utf8')), routes: 1 }]);
    for (let i = 0; i < 10; i++) expect(await g.status('/d')).toBe(200);
    expect((await g.reload({ method: 'GET' })).status).toBe(405);
    expect((await g.reload({ headers: { origin: 'https://evil.example' } })).status).toBe(403);
  }));

it('uses a changed credential in all processes, after it has said once for all that the old one is not accepted', async () => {
  const next = testCredentials().gateway.GATEWAY_RPC_SECRET;
  authority.leaseMs = 1_500;
  authority.accepted = firstParty(next);
  const held = async (g: (typeof gateways)[number]) =>
    (await g.metrics('latchkey_verifier{what="leaseHeld"'))[0]!.at(-1);
  await each(async (g) => {
    await waitFor(async () => (await held(g)) === '0', BUSY);
    writeFileSync(g.secretFile, 'short');
    const { status, body } = await g.reload();
    expect([status, body['detail']]).toEqual([
      422,
      expect.stringMatching(/^GATEWAY_RPC_SECRET_FILE: each secret must/),
    ]);
    writeFileSync(g.secretFile, next);
    expect((await g.reload()).status).toBe(200);
    await waitFor(async () => (await held(g)) === '1', BUSY);
    expect(g.lines('the token-service does not accept GATEWAY_RPC_SECRET')).toHaveLength(1);
    expect(g.lines('GATEWAY_RPC_SECRET_FILE has changed')).toHaveLength(1);
  });
});
