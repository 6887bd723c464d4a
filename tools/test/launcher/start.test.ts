import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { freePort, stillRuns } from '@latchkey/local-stack';
import { decryptionKey } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { fakeRepository } from './fake-repository.js';
import { identities, launch, type Ready } from './launcher.js';

type Launcher = ReturnType<typeof launch>;

describe('a start', () => {
  let root: string;
  let remove: () => void;
  let home: string;
  let launcher: Launcher;
  let ready: Ready;

  beforeAll(async () => {
    ({ root, remove } = fakeRepository());
    home = path.join(root, '.latchkey');
    launcher = launch(root, { AWS_SECRET: 'passes', npm_config_x: 'does not' });
    ready = await launcher.ready();
  });
  afterAll(async () => {
    launcher.kill('SIGTERM');
    await launcher.ended;
    remove();
  });

  const environmentOf = (service: string) =>
    JSON.parse(readFileSync(path.join(root, service, 'dist', 'env.json'), 'utf8')) as Record<string, string>;

  test('is in order: schema, token-service, then the others', () => {
    const order = readFileSync(path.join(root, 'order'), 'utf8').trim().split('\n');
    expect(order.slice(0, 2)).toEqual(['migrated', 'token-service ready']);
    expect(order.slice(2).sort()).toEqual(['demo-upstream ready', 'gateway ready', 'jobs ready']);
  });

  test('prints the URL in its last line, and ready.json contains every process', () => {
    expect(launcher.output().trimEnd().split('\n').at(-1)).toBe(`ready ${ready.url}`);
    expect(identities(ready)).toHaveLength(5);
    expect(Object.keys(ready)).toEqual([
      'url',
      'apiUrl',
      'opsUrl',
      'rpcAddress',
      'authzAddress',
      'adminEmail',
      'adminPassword',
      'databaseUrl',
      'redisUrl',
      'pids',
    ]);
  });

  test('lets no one else read a file with a secret', () => {
    expect(statSync(path.join(home, 'ready.json')).mode & 0o777).toBe(0o600);
    const secrets = readdirSync(path.join(home, 'secrets'));
    expect(secrets).toEqual(
      expect.arrayContaining(['token-peppers', 'jobs-rpc-secret', 'events-secret', 'usage-secret', 'admin-password']),
    );
    for (const name of secrets) expect(statSync(path.join(home, 'secrets', name)).mode & 0o777).toBe(0o600);
  });

  test('prints the first sign-in, and a command that calls the demo upstream', () => {
    expect(launcher.output()).toContain(`Password      ${ready.adminPassword}   (shown only once)`);
    const line = /Try it +(curl .+)/.exec(launcher.output())?.[1] as string;
    expect(line).not.toContain('lk_pat_');
    expect(execFileSync('sh', ['-c', `${line} --silent`], { encoding: 'utf8' })).toContain('from the demo upstream');
  });

  test('passes each service the secrets that it needs and no others', () => {
    const [gateway, jobs, service] = ['gateway', 'jobs', 'token-service'].map((name) => environmentOf(`apps/${name}`));
    expect(Object.keys(gateway!)).toEqual(expect.arrayContaining(['REDIS_URL', 'RPC_ADDRESS', 'API_URL']));
    const credentialsOf = (env: Record<string, string> | undefined) =>
      Object.keys(env!).filter((name) => /^(GATEWAY|JOBS)_\w+_(SECRET|KEY)$/.test(name) || name === 'RPC_SECRET');
    expect(credentialsOf(gateway).sort()).toEqual(['GATEWAY_PROOF_SECRET', 'GATEWAY_RPC_SECRET']);
    expect(credentialsOf(jobs).sort()).toEqual(['JOBS_RPC_SECRET', 'JOBS_SEALING_KEY']);
    expect(credentialsOf(service).sort()).toEqual([
      'GATEWAY_PROOF_SECRET',
      'GATEWAY_RPC_SECRET',
      'JOBS_RPC_SECRET',
      'JOBS_SEALING_PUBLIC_KEY',
    ]);
    expect(service).toMatchObject({
      GATEWAY_RPC_SECRET: gateway!['GATEWAY_RPC_SECRET'],
      GATEWAY_PROOF_SECRET: gateway!['GATEWAY_PROOF_SECRET'],
      JOBS_RPC_SECRET: jobs!['JOBS_RPC_SECRET'],
      JOBS_SEALING_PUBLIC_KEY: decryptionKey(jobs!['JOBS_SEALING_KEY']!).text,
    });
    const others = ['DATABASE_URL', 'TOKEN_PEPPERS', 'EVENTS_SECRET', 'EVENTS_SIGNING_KEY', 'USAGE_SECRET'];
    for (const name of [...others, 'AUDIT_SIGNING_KEY', 'RECEIPT_SIGNING_KEY', 'ADMIN_PASSWORD'])
      expect(gateway).not.toHaveProperty(name);
    expect(environmentOf('apps/jobs')).not.toHaveProperty('EVENTS_SIGNING_KEY');
    expect(environmentOf('apps/jobs')['USAGE_SECRET']).toBe(environmentOf('apps/token-service')['USAGE_SECRET']);
    expect(environmentOf('apps/jobs')).not.toHaveProperty('TOKEN_PEPPERS');
    expect(environmentOf('examples/demo-upstream')).not.toHaveProperty('REDIS_URL');
    expect(environmentOf('apps/token-service')['ADMIN_PASSWORD']).toBe(ready.adminPassword);
    expect(new URL(environmentOf('apps/token-service')['DATABASE_URL'] as string).username).toBe('latchkey_service');
    expect(new URL(environmentOf('apps/jobs')['DATABASE_URL'] as string).username).toBe('latchkey_jobs');
  });

  test('binds the ops ports to this machine, also when the public port is reachable by others', () => {
    expect(environmentOf('apps/gateway')['OPS_HOST']).toBe('127.0.0.1');
    expect(environmentOf('apps/token-service')['HOST']).toBe('127.0.0.1');
  });

  test("passes on all other variables, except npm's", () => {
    expect(environmentOf('apps/jobs')).toMatchObject({ AWS_SECRET: 'passes' });
    expect(environmentOf('apps/jobs')).not.toHaveProperty('npm_config_x');
  });

  test('merges the output of the services into plain lines without a terminal', () => {
    expect(launcher.output()).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z info {2}gateway {7}up port=1$/m);
    expect(launcher.output()).not.toContain('\u001b[');
  });

  test('a second one in the same home fails', async () => {
    const second = launch(root);
    expect(await second.ended).toBe(1);
    expect(second.output()).toContain(`Latchkey cannot start: Latchkey already runs in ${home} (process `);
  });

  test.each(['gateway', 'tokenService', 'postgres', 'redis'] as const)(
    'a killed %s is restarted and ready.json contains the new process',
    async (name) => {
      const before = launcher.now();
      process.kill(before.pids[name] as number, 'SIGKILL');
      await waitFor(() => launcher.now().pids[name] !== before.pids[name] && launcher.now().pids[name], {
        timeoutMs: 60_000,
        what: `${name} coming back`,
      });
      expect({ ...launcher.now(), pids: null }).toEqual({ ...before, pids: null });
    },
  );
});

describe('a stop', () => {
  let root: string;
  let remove: () => void;
  let launcher: Launcher;

  beforeAll(() => {
    ({ root, remove } = fakeRepository());
  });
  afterEach(async () => {
    launcher.kill('SIGTERM');
    await launcher.ended;
  });
  afterAll(() => remove());

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('by %s stops everything, with a message', async (signal) => {
    launcher = launch(root);
    const ready = await launcher.ready();
    const running = identities(ready);
    launcher.kill(signal);
    launcher.kill(signal);
    expect(await launcher.ended).toBe(0);
    expect(running).toHaveLength(5);
    expect(running.filter(stillRuns)).toEqual([]);
    expect(existsSync(path.join(root, '.latchkey', 'ready.json'))).toBe(false);
    expect(launcher.output().trimEnd().split('\n').at(-1)).toBe('stopped');
    expect(readFileSync(path.join(root, 'order'), 'utf8').trimEnd().split('\n').at(-1)).toBe('token-service stopped');
  });

  test('because the parent process has exited stops everything too', async () => {
    launcher = launch(root);
    const running = identities(await launcher.ready());
    launcher.abandon();
    expect(await launcher.ended).toBe(0);
    expect(running.filter(stillRuns)).toEqual([]);
  });

  test('during the start stops what was started', async () => {
    launcher = launch(root);
    await waitFor(() => launcher.output().includes('postgres ready'), {
      timeoutMs: 60_000,
      what: 'PostgreSQL being ready',
    });
    launcher.kill('SIGTERM');
    await launcher.ended;
    const left = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).split('\n');
    expect(left.filter((line) => line.includes(root))).toEqual([]);
  });

  test('by a crash leaves nothing running, and the next start keeps the data and prints no secrets', async () => {
    launcher = launch(root);
    const before = await launcher.ready();
    const running = identities(before);
    launcher.kill('SIGKILL');
    await launcher.ended;
    await waitFor(() => !running.some(stillRuns), { timeoutMs: 60_000, what: 'everything ending' });

    launcher = launch(root);
    const after = await launcher.ready();
    expect(after.adminPassword).toBe(before.adminPassword);
    expect(new URL(after.databaseUrl).password).toBe(new URL(before.databaseUrl).password);
    expect(launcher.output()).not.toContain(before.adminPassword);
    expect(launcher.output()).not.toContain('lk_pat_');
    expect(launcher.output()).toContain('Try it        curl -H @');
  });
});

describe('a failing start', () => {
  const removals: (() => void)[] = [];
  afterAll(() => {
    for (const remove of removals) remove();
  });
  const repository = (changes: Record<string, string> = {}) => {
    const { root, remove } = fakeRepository(changes);
    removals.push(remove);
    return root;
  };

  test('because of a port in use names the port and its variable before anything is started', async () => {
    const port = await freePort();
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve));
    const launcher = launch(repository(), { API_PORT: String(port) });
    expect(await launcher.ended).toBe(1);
    expect(launcher.output()).toContain(
      `Latchkey cannot start: port ${port} (API_PORT) is in use by another program; stop it, or set API_PORT to another port`,
    );
    expect(launcher.output()).not.toContain('postgres');
    other.close();
  });

  test('because HOST is reachable by others names PUBLIC_URL', async () => {
    const launcher = launch(repository(), { HOST: '0.0.0.0' });
    expect(await launcher.ended).toBe(1);
    expect(launcher.output()).toContain('PUBLIC_URL is required because HOST=0.0.0.0');
  });

  test('because of invalid variables names all of them', async () => {
    const launcher = launch(repository(), {
      PORT: 'eighty',
      LEASE_MS: '1',
      ADMIN_PASSWORD: 'short-secret'.slice(0, 5),
    });
    expect(await launcher.ended).toBe(1);
    for (const name of ['PORT', 'LEASE_MS', 'ADMIN_PASSWORD']) expect(launcher.output()).toContain(`- ${name}: `);
    expect(launcher.output()).not.toContain('"short"');
  });

  test.each([
    ['apps/jobs/dist/main.js', 'jobs exited before it was ready (code 3)'],
    ['apps/token-service/dist/migrate.js', 'migrate failed (code 3), see above'],
  ])('because of a failing %s names it, prints its output, and stops the rest', async (file, message) => {
    const root = repository({ [file]: "console.log('the reason'); process.exit(3);" });
    const launcher = launch(root);
    expect(await launcher.ended).toBe(1);
    expect(launcher.output()).toContain('the reason');
    expect(launcher.output()).toContain(`Latchkey cannot start: ${message}`);
    const left = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).split('\n');
    expect(left.filter((line) => line.includes(root))).toEqual([]);
  });
});

test('a home of the version before starts again: its secrets stay, those that are new are removals', async () => {
  const { root, remove } = fakeRepository();
  const secrets = path.join(root, '.latchkey', 'secrets');
  const kept = { 'token-peppers': 'p'.repeat(43), 'events-secret': 'e'.repeat(43), 'rpc-secret': 'r'.repeat(43) };
  mkdirSync(secrets, { recursive: true });
  for (const [name, text] of Object.entries(kept)) writeFileSync(path.join(secrets, name), text);
  // A single secret that was set for all services needs no change either.
  const launcher = launch(root, { RPC_SECRET: kept['rpc-secret'] });
  await launcher.ready();
  const service = JSON.parse(readFileSync(path.join(root, 'apps/token-service/dist/env.json'), 'utf8'));
  expect(service).toMatchObject({ TOKEN_PEPPERS: kept['token-peppers'], EVENTS_SECRET: kept['events-secret'] });
  for (const name of ['GATEWAY_RPC_SECRET', 'JOBS_RPC_SECRET', 'GATEWAY_PROOF_SECRET'])
    expect(service[name]).toMatch(/^[\w-]{43}$/);
  expect(service).not.toHaveProperty('RPC_SECRET');
  expect(existsSync(path.join(secrets, 'rpc-secret'))).toBe(false);
  launcher.kill('SIGTERM');
  await launcher.ended;
  remove();
});

test('servers given by DATABASE_URL and REDIS_URL are used, none is started', async () => {
  const { root, remove } = fakeRepository();
  const own = { DATABASE_URL: 'postgres://me:pw@127.0.0.1:1/mine', REDIS_URL: 'redis://127.0.0.1:1' };
  const launcher = launch(root, own);
  const ready = await launcher.ready();
  expect(ready).toMatchObject({ databaseUrl: own.DATABASE_URL, redisUrl: own.REDIS_URL });
  expect(ready.pids).toMatchObject({ postgres: null, redis: null });
  const jobs = JSON.parse(readFileSync(path.join(root, 'apps/jobs/dist/env.json'), 'utf8'));
  expect(jobs).toMatchObject(own);
  launcher.kill('SIGTERM');
  await launcher.ended;
  remove();
});
