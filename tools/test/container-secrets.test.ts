import { execFileSync } from 'node:child_process';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
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

describe('rotate', () => {
  const rotate = (name: string) =>
    execFileSync(process.execPath, [path.join(root, 'infra/docker/make-secrets.mjs'), 'rotate', name], {
      env: { SECRETS_DIR: dir },
      encoding: 'utf8',
    });
  const list = (file: string) => read(file).split(',');

  test.each([
    ['GATEWAY_RPC_SECRET', ['gateway/gateway_rpc_secret', 'token-service/gateway_rpc_secret']],
    ['GATEWAY_PROOF_SECRET', ['gateway/gateway_proof_secret', 'token-service/gateway_proof_secret']],
    ['JOBS_RPC_SECRET', ['jobs/jobs_rpc_secret', 'token-service/jobs_rpc_secret']],
    ['USAGE_SECRET', ['jobs/usage_secret', 'token-service/usage_secret']],
  ])('%s is accepted everywhere before it is sent, and the old one until nobody sends it', (name, files) => {
    make();
    const [old] = list(files[0]!);
    const seen: string[][] = [];
    for (let step = 1; step <= 3; step++) {
      expect(rotate(name)).toContain(`${name}: step ${step} of 3 is written.`);
      // An up between the steps changes nothing.
      make();
      for (const file of files) expect(list(file)).toEqual(list(files[0]!));
      seen.push(list(files[0]!));
    }
    const [, next] = seen[0]!;
    expect(next).not.toBe(old);
    expect(seen).toEqual([[old, next], [next, old], [next]]);
  });

  test('TOKEN_PEPPERS is read everywhere before it writes, and one that is dropped is kept', () => {
    make();
    const file = 'token-service/token_peppers';
    const [old] = list(file);
    rotate('TOKEN_PEPPERS');
    const next = list(file)[1]!;
    expect(list(file)).toEqual([old, next]);
    rotate('TOKEN_PEPPERS');
    expect(list(file)).toEqual([next, old]);
    expect(rotate('TOKEN_PEPPERS')).toContain('That was the last step.');
    expect(list(file)).toEqual([next]);
    expect(read('administrator/retired_token_peppers')).toBe(old);
    make({}, 'rotate', 'TOKEN_PEPPERS', 'back');
    expect(list(file)).toEqual([next, old]);
  });

  test('a step that was interrupted is done again with the same values, and none twice', () => {
    make();
    rotate('REDIS_PASSWORD');
    const files = { 'redis/password_previous': read('redis/password'), 'redis/password': 'the next password' };
    const begun = { step: 1, files, next: ['what comes next'] };
    const progress = path.join(dir, 'administrator/rotation/REDIS_PASSWORD');
    rmSync(progress);
    writeFileSync(progress, JSON.stringify(begun));
    expect(rotate('REDIS_PASSWORD')).toContain('what comes next');
    expect(read('redis/password_previous')).toBe(files['redis/password_previous']);
    expect(read('gateway/redis_url')).toContain(files['redis/password']);
    expect(rotate('REDIS_PASSWORD')).toContain('step 3 of 3');
  });

  test('JOBS_SEALING_KEY decrypts at jobs before anything is encrypted to it', () => {
    make();
    const before = read('token-service/jobs_sealing_public_key');
    rotate('JOBS_SEALING_KEY');
    make();
    expect(read('token-service/jobs_sealing_public_key')).toBe(before);
    rotate('JOBS_SEALING_KEY');
    const [next, old] = list('jobs/jobs_sealing_key');
    expect(read('token-service/jobs_sealing_public_key')).toBe(decryptionKey(next!).text);
    expect(before).toBe(decryptionKey(old!).text);
    rotate('JOBS_SEALING_KEY');
    expect(list('jobs/jobs_sealing_key')).toEqual([next]);
  });

  test.each(['AUDIT', 'RECEIPT'])('the public half of an %s_SIGNING_KEY that was replaced is kept', (name) => {
    make();
    const key = `token-service/${name.toLowerCase()}_signing_key`;
    const before = createPublicKey(read(key)).export({ type: 'spki', format: 'pem' });
    rotate(`${name}_SIGNING_KEY`);
    rotate(`${name}_SIGNING_KEY`);
    const retired = read(`token-service/${name.toLowerCase()}_retired_keys`);
    expect(retired.startsWith(before as string)).toBe(true);
    expect(retired.match(/BEGIN PUBLIC KEY/g)).toHaveLength(2);
    expect(retired).not.toContain(createPublicKey(read(key)).export({ type: 'spki', format: 'pem' }));
  });

  test('EVENTS_SIGNING_KEY is known to verifiers before it signs', () => {
    make();
    const file = 'token-service/events_signing_key';
    const [old] = list(file);
    rotate('EVENTS_SIGNING_KEY');
    const next = list(file)[1];
    expect(list(file)).toEqual([old, next]);
    rotate('EVENTS_SIGNING_KEY');
    expect(list(file)).toEqual([next]);
  });

  test('passwords change in every address, and no message shows one', () => {
    make();
    const before = all();
    const printed = [rotate('POSTGRES_PASSWORDS'), ...[1, 2].map(() => rotate('REDIS_PASSWORD'))].join('');
    for (const file of ['token-service/database_url', 'jobs/database_url', 'token-service/retention_database_url'])
      expect(read(file)).not.toBe(before[file]);
    expect(read('jobs/database_url')).toContain(read('migrate/password_jobs'));
    expect(read('migrate/database_url')).toBe(before['migrate/database_url']);
    for (const service of ['token-service', 'gateway', 'jobs'])
      expect(read(`${service}/redis_url`)).toContain(read('redis/password'));
    expect(read('redis/password_previous')).toBe(before['redis/password']);
    for (const secret of [read('redis/password'), read('migrate/password_jobs')]) expect(printed).not.toContain(secret);
    rotate('REDIS_PASSWORD');
    expect(named('redis')).toEqual(['password', 'redis.conf']);
  });

  test('what is not made here, or unknown, is refused by name', () => {
    make();
    expect(() => rotate('LEDGER_KEY')).toThrow(/LEDGER_KEY stays/);
    const given = { SECRETS_DIR: dir, USAGE_SECRET: 'u'.repeat(32) };
    const args = [path.join(root, 'infra/docker/make-secrets.mjs'), 'rotate', 'USAGE_SECRET'];
    expect(() => execFileSync(process.execPath, args, { env: given, stdio: 'pipe' })).toThrow(/is set in .env/);
    expect(() => make({ AUDIT_RETIRED_KEYS: 'a key' }, 'rotate', 'AUDIT_SIGNING_KEY')).toThrow(
      /AUDIT_RETIRED_KEYS is set/,
    );
  });
});
