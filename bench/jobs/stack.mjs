/** A token-service, gateways and workers on databases of the measurement's own, and what to read off them. */
import { execFile } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { freePorts, spawnService, testCredentials, testDatabase, testRedis } from '@latchkey/testing';

const apps = path.join(import.meta.dirname, '../../apps');
const ADMIN = { email: 'admin@example.org', password: 'the first administrator' };
/** Of the measurement alone; the same for a database that is kept from one run to the next. */
const PEPPER = 'a pepper of measurements of 32 characters or more';

/** @param {string} url @param {string} role */
function asRole(url, role) {
  const under = new URL(url);
  under.searchParams.set('options', `-c role=${role}`);
  return under.href;
}

/** @param {string} databaseUrl of a superuser */
export function migrate(databaseUrl) {
  return promisify(execFile)(process.execPath, [path.join(apps, 'token-service/dist/migrate.js')], {
    env: { PATH: process.env['PATH'], DATABASE_URL: databaseUrl },
  });
}

/**
 * Starts PostgreSQL (nothing flushed to disk, unless a database is handed in), Redis and a token-service; gateways are
 * started by `gateway()`, workers by `worker()`.
 * @param {{ database?: Pick<import('@latchkey/testing').TestDatabase, 'url' | 'query' | 'close'>,
 *   service?: Record<string, string> }} [options] `service`: settings of the token-service. Flags of its node, for a
 *   profile, can be given in SERVICE_NODE_OPTIONS.
 */
export async function startStack(options = {}) {
  const [database, redis] = await Promise.all([options.database ?? testDatabase(), testRedis()]);
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
  await migrate(database.url);
  const [api, rpc, ops] = await freePorts(3);
  const secret = () => randomBytes(32).toString('hex');
  const secrets = { EVENTS_SECRET: secret(), EVENTS_SIGNING_KEY: secret(), USAGE_SECRET: secret() };
  const credentials = testCredentials();
  const { privateKey } = generateKeyPairSync('ed25519');
  const startTokenService = () =>
    spawnService(
      path.join(apps, 'token-service/dist/main.js'),
      {
        ...secrets,
        ...credentials.tokenService,
        DATABASE_URL: asRole(database.url, 'latchkey_service'),
        REDIS_URL: redis.url,
        API_PORT: String(api),
        RPC_PORT: String(rpc),
        OPS_PORT: String(ops),
        TOKEN_PEPPERS: PEPPER,
        AUDIT_SIGNING_KEY: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
        ADMIN_EMAIL: ADMIN.email,
        ADMIN_PASSWORD: ADMIN.password,
        LOG_LEVEL: 'error',
        ...(process.env['SERVICE_NODE_OPTIONS'] && { NODE_OPTIONS: process.env['SERVICE_NODE_OPTIONS'] }),
        ...options.service,
      },
      { readyUrl: `http://127.0.0.1:${ops}/readyz` },
    );
  const tokenService = await startTokenService();
  const worker = (/** @type {Record<string, string>} */ env = {}) =>
    spawnService(
      path.join(apps, 'jobs/dist/main.js'),
      {
        USAGE_SECRET: secrets.USAGE_SECRET,
        ...credentials.jobs,
        DATABASE_URL: asRole(database.url, 'latchkey_jobs'),
        REDIS_URL: redis.url,
        RPC_ADDRESS: `127.0.0.1:${rpc}`,
        OPS_PORT: '0',
        LOG_LEVEL: 'info',
        // Many are started: what was compiled once is not compiled again.
        NODE_COMPILE_CACHE: path.join(dir, 'compiled'),
        ...env,
      },
      { readyText: 'jobs is ready', readyTimeoutMs: 120_000 },
    );

  /** @type {(() => unknown)[]} */
  const closing = [];
  /** @type {Promise<string> | undefined} */
  let routes;
  /** A routes file with one route `/demo/*`, open to every valid token, before an upstream that returns `ok`. */
  const routesFile = async () => {
    const upstream = createHttpServer((_req, res) => res.end('ok'));
    await new Promise((resolve) => upstream.listen(0, '127.0.0.1', () => resolve(null)));
    closing.push(() => {
      upstream.close();
      upstream.closeAllConnections();
    });
    const { port } = /** @type {import('node:net').AddressInfo} */ (upstream.address());
    const file = path.join(dir, 'gateway.yaml');
    writeFileSync(
      file,
      `routes:
  - { name: demo, path: /demo/*, upstream: "http://127.0.0.1:${port}", require: { scopes: { "*": [] } } }
  - { name: guarded, path: /guarded/*, upstream: "http://127.0.0.1:${port}", require: { scopes: { "*": ["demo:read"] } } }
`,
    );
    return file;
  };
  /** @returns {Promise<import('@latchkey/testing').RunningService & { url: string, opsUrl: string }>} */
  const gateway = async () => {
    routes ??= routesFile();
    const [port, gatewayOps, authz] = await freePorts(3);
    const running = await spawnService(
      path.join(apps, 'gateway/dist/main.js'),
      {
        PORT: String(port),
        OPS_PORT: String(gatewayOps),
        AUTHZ_PORT: String(authz),
        RPC_ADDRESS: `127.0.0.1:${rpc}`,
        ...credentials.gateway,
        API_URL: `http://127.0.0.1:${api}`,
        REDIS_URL: redis.url,
        GATEWAY_CONFIG: await routes,
        GATEWAY_PROCESSES: '1',
        PUBLIC_URL: `http://127.0.0.1:${port}`,
        LOG_LEVEL: 'error',
      },
      { readyUrl: `http://127.0.0.1:${gatewayOps}/readyz`, readyTimeoutMs: 120_000 },
    );
    return Object.assign(running, { url: `http://127.0.0.1:${port}`, opsUrl: `http://127.0.0.1:${gatewayOps}` });
  };

  const apiUrl = `http://127.0.0.1:${api}`;
  const signedIn = await fetch(`${apiUrl}/v1/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(ADMIN),
  });
  const cookie = signedIn.headers.getSetCookie()[0]?.split(';', 1)[0] ?? '';
  /** Calls the management API as the administrator. @param {string} method @param {string} target @param {unknown} [body] */
  const call = async (method, target, body) => {
    const response = await fetch(new URL(target, apiUrl), {
      method,
      headers: { cookie, ...(body !== undefined && { 'content-type': 'application/json' }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${target} returned ${response.status} ${await response.text()}`);
    return /** @type {any} */ (response.status === 204 ? undefined : await response.json());
  };
  return {
    database,
    redis,
    secrets,
    credentials,
    tokenService,
    worker,
    gateway,
    apiUrl,
    rpcAddress: `127.0.0.1:${rpc}`,
    cookie,
    call,
    /** One number from PostgreSQL. @param {string} sql @param {unknown[]} [values] */
    count: async (sql, values) => Number(Object.values((await database.query(sql, values))[0] ?? {})[0]),
    stop: async () => {
      await tokenService.stop();
      for (const part of closing) part();
      rmSync(dir, { recursive: true });
      await Promise.all([redis.close(), database.close()]);
    },
  };
}

/** @param {number} pid @param {'VmHWM' | 'VmRSS'} what @returns {number} megabytes */
export function memoryMb(pid, what) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Math.round(Number(new RegExp(`${what}:\\s+(\\d+) kB`).exec(status)?.[1] ?? 0) / 1024);
}

/** @param {() => Promise<boolean>} condition @param {number} [everyMs] */
export async function until(condition, everyMs = 250) {
  while (!(await condition())) await sleep(everyMs);
}

/** @param {number} ms */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @param {number} since a reading of `performance.now()` @returns {number} */
export const secondsSince = (since) => Math.round((performance.now() - since) / 100) / 10;
