import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { status } from '@grpc/grpc-js';
import { createLogger, firstParty, LiveSettings, systemClock, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { startTokenService, type TokenService } from '../src/app.js';
import { live, settings, type TokenServiceConfig, tokenServiceConfig } from '../src/config.js';
import { GATEWAY_RPC_SECRET, issue, type Person, type World, world } from './harness.js';

const role = `changing_${randomBytes(6).toString('hex')}`;
/** What the ops port says. */
interface Readiness {
  readonly status: string;
  readonly checks: Record<string, string>;
  readonly warnings: Record<string, string>;
}

const BUSY = { timeoutMs: 30_000 };

let w: World;
let dir: string;
let given: LiveSettings<TokenServiceConfig>;
let service: TokenService;
let admin: Redis;
let person: Person;
let logs = '';

const write = (name: string, text: string) => writeFileSync(path.join(dir, name), `${text}\n`);
const scopes = (...names: string[]) =>
  `scopes:\n${names.map((name) => `  - { name: ${name}, description: d, members: true }\n`).join('')}`;

/** An address with other credentials. */
function as(address: string, username: string, password: string): string {
  const url = new URL(address);
  [url.username, url.password] = [username, password];
  return url.href;
}
const database = (password: string) => {
  const url = new URL(as(w.database.url, role, password));
  url.searchParams.set('options', '-c role=latchkey_service');
  return url.href;
};

beforeAll(async () => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-changing-'));
  write('scopes.yaml', scopes('demo:read'));
  w = await world({ env: { SCOPES_FILE: path.join(dir, 'scopes.yaml') } });
  person = await w.member();
  await w.database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'first' IN ROLE latchkey_service`);
  admin = new Redis(w.redis.url);
  await admin.call('ACL', 'SETUSER', 'service', 'on', '>first', '~*', '&*', '+@all');
  const files: Record<string, string> = {
    DATABASE_URL: database('first'),
    REDIS_URL: as(w.redis.url, 'service', 'first'),
    GATEWAY_RPC_SECRET,
    TOKEN_PEPPERS: w.env['TOKEN_PEPPERS']!,
  };
  const env: NodeJS.ProcessEnv = { ...w.env };
  for (const [name, text] of Object.entries(files)) {
    write(name, text);
    delete env[name];
    env[`${name}_FILE`] = path.join(dir, name);
  }
  const logger = createLogger('token-service', 'debug', {
    write: (line: string) => {
      logs += line;
    },
  });
  given = new LiveSettings({ env, settings, load: (from) => tokenServiceConfig(from), live, logger });
  service = await startTokenService(given.config, logger, systemClock, given);
});
afterAll(async () => {
  await service.stop();
  admin.disconnect();
  await w.database.query(`DROP ROLE ${role}`);
  await w.close().finally(() => rmSync(dir, { recursive: true, force: true }));
});

const reload = async () => {
  const response = await fetch(`${service.opsUrl}/reload`, { method: 'POST' });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
};
const ready = async () => (await (await fetch(`${service.opsUrl}/readyz`)).json()) as Readiness;

it('accepts a credential from the moment its file lists it, and no longer than that', async () => {
  const next = randomBytes(24).toString('base64url');
  const codeOf = async (secret: string) => {
    const rpc = tokensCaller({ address: service.rpcAddress, authorization: firstParty(secret), timeoutMs: 10_000 });
    const request = { token: 'x', scopes: [], project: '', ip: '', route: '', userAgent: '' };
    try {
      await rpc.verify(request);
      return status.OK;
    } catch (error) {
      return (error as { code: number }).code;
    } finally {
      rpc.close();
    }
  };
  expect(await codeOf(next)).toBe(status.UNAUTHENTICATED);
  write('GATEWAY_RPC_SECRET', `${GATEWAY_RPC_SECRET},${next}`);
  // By itself, without being asked.
  await waitFor(() => logs.includes('GATEWAY_RPC_SECRET_FILE has changed: its new value is in use'), BUSY);
  expect([await codeOf(next), await codeOf(GATEWAY_RPC_SECRET)]).toEqual([status.OK, status.OK]);
  write('GATEWAY_RPC_SECRET', next);
  expect(await reload()).toEqual({ status: 200, body: { reloaded: true, pending: [] } });
  expect([await codeOf(next), await codeOf(GATEWAY_RPC_SECRET)]).toEqual([status.OK, status.UNAUTHENTICATED]);
  expect(logs).not.toContain(next);
});

it.each([
  ['another password', `ALTER ROLE ${role} PASSWORD 'second'`, 'password authentication failed'],
  ['no right to log in', `ALTER ROLE ${role} NOLOGIN`, 'is not permitted to log in'],
])('is 503 with the reason in its log while PostgreSQL refuses it for %s', async (_what, sql, reason) => {
  const { secret } = await issue(person, { scopes: ['tokens:read'] });
  const responses = () =>
    Promise.all([
      w.bearer(secret, service).call('/v1/tokens/self'),
      w.as({ cookie: person.cookie! }, service).call('/v1/tokens'),
      w.as({ cookie: person.cookie! }, service).call('POST /v1/tokens', { body: { name: 'x' } }),
      w.as({}, service).call('POST /v1/session', { body: { email: 'a@example.org', password: 'x' } }),
    ]);
  await responses();
  await w.database.query(sql);
  await w.database.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [role]);
  // The first query on a connection that was ended can find that out itself; it is unavailable as well.
  for (let i = 0; i < 3; i++)
    expect((await responses()).map((response) => [response.status, response.body['code']])).toEqual(
      Array(4).fill([503, 'unavailable']),
    );
  expect(logs).toContain(reason);
  expect((await ready()).checks['database']).toContain(reason);
  await w.database.query(`ALTER ROLE ${role} LOGIN PASSWORD 'third'`);
  write('DATABASE_URL', database('third'));
  expect((await reload()).status).toBe(200);
  await waitFor(async () => (await ready()).status === 'ready', BUSY);
  expect((await responses()).map((response) => response.status)).toEqual([200, 200, 201, 401]);
  // As it was, for the next one.
  await w.database.query(`ALTER ROLE ${role} PASSWORD 'first'`);
  write('DATABASE_URL', database('first'));
  await reload();
});

it('goes on without Redis while that refuses its password, says why, and connects with a new one', async () => {
  await admin.call('ACL', 'SETUSER', 'service', 'resetpass', '>second');
  await admin.call('CLIENT', 'KILL', 'USER', 'service');
  await waitFor(() => logs.includes('WRONGPASS'), BUSY);
  expect((await w.as({ cookie: person.cookie! }, service).call('/v1/tokens')).status).toBe(200);
  write('REDIS_URL', as(w.redis.url, 'service', 'second'));
  await reload();
  await waitFor(() => logs.split('Redis is available again').length > 4, BUSY);
});

it('takes over changed scopes at once, and keeps the previous ones when the file is wrong', async () => {
  const known = async () => {
    const { body } = await w
      .as({ cookie: person.cookie! }, service)
      .call<{ items: { name: string }[] }>('GET /v1/scopes');
    return body.items.map(({ name }) => name).filter((name) => name.startsWith('demo:'));
  };
  expect(await known()).toEqual(['demo:read']);
  write('scopes.yaml', scopes('demo:read', 'demo:new'));
  expect((await reload()).status).toBe(200);
  expect(await known()).toEqual(['demo:read', 'demo:new']);
  write('scopes.yaml', 'scopes:\n  - { name: demo:read }\n');
  const { status, body } = await reload();
  expect([status, body['code'], body['detail']]).toEqual([
    422,
    'reload_failed',
    expect.stringContaining('scopes.yaml:2'),
  ]);
  expect((await ready()).warnings['scopes']).toBe(body['detail']);
  expect(await known()).toEqual(['demo:read', 'demo:new']);
  write('scopes.yaml', scopes('demo:read'));
  expect((await reload()).status).toBe(200);
  expect(await known()).toEqual(['demo:read']);
  expect(await ready()).not.toHaveProperty('warnings.scopes');
});

it('says of a pepper that changed that it needs a restart', async () => {
  write('TOKEN_PEPPERS', `${randomBytes(24).toString('hex')},${w.env['TOKEN_PEPPERS']}`);
  expect((await reload()).body).toEqual({ reloaded: true, pending: ['TOKEN_PEPPERS'] });
  expect((await ready()).warnings['settings']).toBe('TOKEN_PEPPERS_FILE has changed: restart this service to use it');
  const metrics = await (await fetch(`${service.opsUrl}/metrics`)).text();
  expect(metrics).toMatch(/latchkey_settings_pending\{name="TOKEN_PEPPERS",.*\} 1/);
});
