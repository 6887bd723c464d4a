import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { decryptionKey } from '@latchkey/runtime';

const root = path.join(import.meta.dirname, '../..');
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-secrets-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const make = (env: Record<string, string> = {}, ...args: string[]) =>
  execFileSync(process.execPath, [path.join(root, 'infra/docker/make-secrets.mjs'), ...args], {
    env: { SECRETS_DIR: dir, ...env },
    encoding: 'utf8',
  });
const read = (file: string) => readFileSync(path.join(dir, file), 'utf8');
const all = () =>
  Object.fromEntries(
    readdirSync(dir, { recursive: true, encoding: 'utf8' })
      .filter((file) => statSync(path.join(dir, file)).isFile())
      .map((file) => [file, read(file)]),
  );
/** The files of one service. */
const named = (service: string) => readdirSync(path.join(dir, service)).sort();

test('each volume contains the secrets of its service only', () => {
  make();
  expect(named('gateway')).toEqual(['ca', 'gateway_proof_secret', 'gateway_rpc_secret', 'redis_url']);
  expect(named('jobs').filter((file) => /secret|key/.test(file))).toEqual([
    'jobs_rpc_secret',
    'jobs_sealing_key',
    'usage_secret',
  ]);
  expect(named('token-service')).not.toContain('jobs_sealing_key');
  expect(read('token-service/jobs_sealing_public_key')).toBe(decryptionKey(read('jobs/jobs_sealing_key')).text);
  const shared = ['gateway/gateway_rpc_secret', 'gateway/gateway_proof_secret', 'jobs/jobs_rpc_secret'];
  for (const file of shared) expect(read(`token-service/${path.basename(file)}`)).toBe(read(file));
  expect(new Set(shared.map(read)).size).toBe(3);
  const compose = readFileSync(path.join(root, 'docker-compose.yml'), 'utf8');
  for (const [, file] of compose.matchAll(/_FILE: \/run\/latchkey\/(\w+)/g))
    expect(Object.keys(all()).map((name) => path.basename(name))).toContain(file);
});

test('later starts change nothing', () => {
  make();
  const before = all();
  make();
  expect(all()).toEqual(before);
});

test('volumes of the previous version get missing secrets, and lose those with too many uses', () => {
  for (const service of ['token-service', 'gateway', 'jobs']) {
    mkdirSync(path.join(dir, service), { recursive: true });
    writeFileSync(path.join(dir, service, 'rpc_secret'), 'one for all');
  }
  for (const service of ['token-service', 'jobs'])
    writeFileSync(path.join(dir, service, 'events_secret'), 'known to jobs');
  writeFileSync(path.join(dir, 'token-service/token_peppers'), 'the pepper');
  make();
  expect(read('token-service/token_peppers')).toBe('the pepper');
  expect(Object.keys(all()).filter((file) => /(^|\/)rpc_secret$/.test(file))).toEqual([]);
  for (const former of ['one for all', 'known to jobs']) expect(Object.values(all())).not.toContain(former);
  expect(read('token-service/events_secret')).toHaveLength(43);
  const before = all();
  make();
  expect(all()).toEqual(before);
});

test('given secrets are used, lists unchanged', () => {
  const [next, previous] = ['n'.repeat(32), 'p'.repeat(32)];
  make({ GATEWAY_RPC_SECRET: `${next},${previous}`, JOBS_SEALING_KEY: `${next}, ${previous}` });
  expect(read('gateway/gateway_rpc_secret')).toBe(`${next},${previous}`);
  expect(read('token-service/jobs_sealing_public_key')).toBe(decryptionKey(next).text);
});

test('the first password can be shown again, and showing it makes nothing', () => {
  const printed = make();
  const before = all();
  const password = make({}, 'password').trim();
  expect(printed).toContain(`password: ${password}\n`);
  expect(password).toHaveLength(20);
  expect(all()).toEqual(before);
});

test('with servers of one’s own, each service gets their address for its own role', () => {
  make();
  const password = read('migrate/password_jobs');
  const owner = 'postgresql://owner:o%40@db.example:6432/tokens?sslmode=verify-full';
  const redis = 'rediss://:secret@cache.example:6380/2';
  make({ DATABASE_URL: owner, REDIS_URL: redis });
  expect(read('migrate/database_url')).toBe(owner);
  const rest = '@db.example:6432/tokens?sslmode=verify-full';
  expect(read('jobs/database_url')).toBe(`postgresql://latchkey_jobs:${password}${rest}`);
  expect(read('token-service/database_url')).toBe(
    `postgresql://latchkey_service:${read('migrate/password_service')}${rest}`,
  );
  expect(read('token-service/retention_database_url')).toBe(
    `postgresql://latchkey_retention:${read('migrate/password_retention')}${rest}`,
  );
  for (const service of ['token-service', 'gateway', 'jobs']) expect(read(`${service}/redis_url`)).toBe(redis);
  // Only migrations and backups connect as the owner.
  expect(
    Object.entries(all())
      .filter(([, text]) => text === owner)
      .map(([file]) => file),
  ).toEqual(['migrate/database_url']);
});

test('services authenticate the token-service by a certificate of their own authority, whose key none of them has', async () => {
  make();
  const server = createServer({ cert: read('token-service/tls_certificate'), key: read('token-service/tls_key') });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const open = async (servername: string): Promise<TLSSocket> => {
    const socket = connect({ host: '127.0.0.1', port, servername, ca: read('gateway/ca') });
    await once(socket, 'secureConnect');
    return socket;
  };
  try {
    (await open('token-service')).destroy();
    await expect(open('another')).rejects.toThrow('does not match');
  } finally {
    server.close();
  }
  expect(read('jobs/ca')).toBe(read('gateway/ca'));
  const holders = Object.entries(all()).filter(([, text]) => text === read('administrator/ca_key'));
  expect(holders.map(([file]) => file)).toEqual(['administrator/ca_key']);
  expect(new X509Certificate(read('gateway/ca')).ca).toBe(true);
});
