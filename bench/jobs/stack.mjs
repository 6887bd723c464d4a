/** A token-service and workers on databases of the measurement's own, and what to read off them. */
import { execFile } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { spawnService, testDatabase, testRedis } from '@latchkey/testing';

const apps = path.join(import.meta.dirname, '../../apps');
const ADMIN = { email: 'admin@example.org', password: 'the first administrator' };

/** @returns {Promise<number>} a port that was free a moment ago */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}

/** @param {string} url @param {string} role */
function asRole(url, role) {
  const under = new URL(url);
  under.searchParams.set('options', `-c role=${role}`);
  return under.href;
}

/** Starts PostgreSQL (nothing flushed to disk), Redis and a token-service; workers are started by `worker()`. */
export async function startStack() {
  const [database, redis] = await Promise.all([testDatabase(), testRedis()]);
  await promisify(execFile)(process.execPath, [path.join(apps, 'token-service/dist/migrate.js')], {
    env: { PATH: process.env['PATH'], DATABASE_URL: database.url },
  });
  const [api, rpc, ops] = [await freePort(), await freePort(), await freePort()];
  const secrets = { RPC_SECRET: randomBytes(32).toString('hex'), EVENTS_SECRET: randomBytes(32).toString('hex') };
  const { privateKey } = generateKeyPairSync('ed25519');
  const tokenService = await spawnService(
    path.join(apps, 'token-service/dist/main.js'),
    {
      ...secrets,
      DATABASE_URL: asRole(database.url, 'latchkey_service'),
      REDIS_URL: redis.url,
      API_PORT: String(api),
      RPC_PORT: String(rpc),
      OPS_PORT: String(ops),
      TOKEN_PEPPERS: randomBytes(32).toString('hex'),
      AUDIT_SIGNING_KEY: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      ADMIN_EMAIL: ADMIN.email,
      ADMIN_PASSWORD: ADMIN.password,
      LOG_LEVEL: 'error',
    },
    { readyUrl: `http://127.0.0.1:${ops}/readyz` },
  );
  const worker = () =>
    spawnService(
      path.join(apps, 'jobs/dist/main.js'),
      {
        ...secrets,
        DATABASE_URL: asRole(database.url, 'latchkey_jobs'),
        REDIS_URL: redis.url,
        RPC_ADDRESS: `127.0.0.1:${rpc}`,
        OPS_PORT: '0',
        LOG_LEVEL: 'info',
      },
      { readyText: 'jobs is ready', readyTimeoutMs: 120_000 },
    );
  const signedIn = await fetch(`http://127.0.0.1:${api}/v1/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(ADMIN),
  });
  const cookie = signedIn.headers.getSetCookie()[0]?.split(';', 1)[0] ?? '';
  return {
    database,
    redis,
    secrets,
    tokenService,
    worker,
    apiUrl: `http://127.0.0.1:${api}`,
    rpcAddress: `127.0.0.1:${rpc}`,
    cookie,
    stop: async () => {
      await tokenService.stop();
      await Promise.all([redis.close(), database.close()]);
    },
  };
}

/** @param {number} pid @param {'VmHWM' | 'VmRSS'} what @returns {number} megabytes */
export function memoryMb(pid, what) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Math.round(Number(new RegExp(`${what}:\\s+(\\d+) kB`).exec(status)?.[1] ?? 0) / 1024);
}

/** @param {() => Promise<boolean>} holds @param {number} [everyMs] */
export async function until(holds, everyMs = 250) {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, everyMs));
}

/** @param {number} since a reading of `performance.now()` @returns {number} */
export const secondsSince = (since) => Math.round((performance.now() - since) / 100) / 10;
