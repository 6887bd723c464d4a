import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { decryptionKey } from '@latchkey/runtime';
import { type RunningService, spawnService, waitFor } from '@latchkey/testing';
import { type Mailbox, mailbox } from './receivers.js';
import { World } from './world.js';

const tokenServiceEntry = path.join(import.meta.dirname, '../../token-service/dist/main.js');
const jobsEntry = path.join(import.meta.dirname, '../dist/main.js');
/** Long, for slow machines: no test here measures time. */
jest.setTimeout(240_000);
const patience = { timeoutMs: 120_000, intervalMs: 100 };

const ADMIN = { email: 'admin@example.org', password: 'the first administrator' };

let world: World;
let mail: Mailbox;
let api: string;
let rpcAddress: string;
let cookie: string;
const running: RunningService[] = [];

/** Ports of this file's own, below the ephemeral range. */
const base = 21_000 + (process.pid % 9_000);

beforeAll(async () => {
  [world, mail] = await Promise.all([World.start(), mailbox()]);
  const service = new URL(world.database.url);
  service.searchParams.set('options', '-c role=latchkey_service');
  api = `http://127.0.0.1:${base}`;
  rpcAddress = `127.0.0.1:${base + 1}`;
  running.push(
    await spawnService(
      tokenServiceEntry,
      {
        DATABASE_URL: service.href,
        REDIS_URL: world.redis.url,
        API_PORT: String(base),
        RPC_PORT: String(base + 1),
        OPS_PORT: String(base + 2),
        TOKEN_PEPPERS: 'pepper-for-tests-0123456789abcdef0123',
        ...world.credentials.tokenService,
        JOBS_SEALING_PUBLIC_KEY: decryptionKey(world.encryptionSecret).text,
        EVENTS_SECRET: 'events-secret-of-the-tests-0123456789',
        EVENTS_SIGNING_KEY: 'events-signing-key-for-tests-0123456789',
        USAGE_SECRET: world.usageSecret,
        AUDIT_SIGNING_KEY: generateKeyPairSync('ed25519')
          .privateKey.export({ type: 'pkcs8', format: 'pem' })
          .toString(),
        ADMIN_EMAIL: ADMIN.email,
        ADMIN_PASSWORD: ADMIN.password,
        LEASE_MS: '1000',
        LOG_LEVEL: 'warn',
      },
      { readyUrl: `http://127.0.0.1:${base + 2}/readyz`, readyTimeoutMs: 120_000 },
    ),
  );
  for (let i = 0; i < 2; i++) running.push(await jobs());
  const signedIn = await fetch(`${api}/v1/session`, json(ADMIN));
  cookie = signedIn.headers.getSetCookie()[0]!.split(';', 1)[0]!;
});
afterAll(async () => {
  await Promise.all(running.map((service) => service.stop()));
  await mail[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

const jobs = (more: Record<string, string> = {}) =>
  spawnService(
    jobsEntry,
    world.environment({ RPC_ADDRESS: rpcAddress, LOG_LEVEL: 'info', SMTP_URL: mail.url, ...more }),
    { readyText: 'jobs is ready', readyTimeoutMs: 120_000 },
  );
const json = (body: unknown, headers: Record<string, string> = {}) => ({
  method: 'POST',
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify(body),
});
const get = async (target: string) =>
  (await (await fetch(`${api}${target}`, { headers: { cookie } })).json()) as Record<string, unknown> & {
    items: { seq: number | null; action: string }[];
  };
const issue = async (more: object = {}) => {
  const response = await fetch(`${api}/v1/tokens`, json({ name: 'short-lived', ...more }, { cookie }));
  return (await response.json()) as { id: string };
};

test('a token past its expiry becomes expired with one audit event, sealed into the chain', async () => {
  const { id } = await issue({ expiresInSeconds: 1 });
  await waitFor(async () => (await get(`/v1/tokens/${id}`))['status'] === 'expired', patience);
  const event = await waitFor(async () => {
    const { items } = await get(`/v1/audit?tokenId=${id}&action=token.expired`);
    return items.length === 1 && items[0]!.seq !== null ? items[0] : null;
  }, patience);
  expect(event).toMatchObject({ action: 'token.expired', actor: { type: 'system' } });
  expect(await get('/v1/audit/verify')).toMatchObject({ ok: true, firstBroken: null });
});

test('a rotated token is revoked as superseded when its overlap has ended', async () => {
  const { id } = await issue();
  const rotated = await fetch(`${api}/v1/tokens/${id}/rotate`, json({ overlapSeconds: 1 }, { cookie }));
  expect(rotated.status).toBe(201);
  await waitFor(async () => (await get(`/v1/tokens/${id}`))['status'] === 'revoked', patience);
  expect(await get(`/v1/tokens/${id}`)).toMatchObject({ revocationReason: 'superseded' });
});

test('tokens expire once each while workers are killed in the middle', async () => {
  const count = 400;
  const [owner] = await world.database.query('SELECT id FROM users LIMIT 1');
  const rounds = 2;
  for (let round = 0; round < rounds; round++) {
    await world.database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, scopes, created_at, expires_at)
       SELECT gen_random_uuid(), sha256(gen_random_uuid()::text::bytea), 'pat', 'mass', 'lk_pat_mass', $1, 'system', '{}', now() - interval '1 hour', now()
       FROM generate_series(1, $2)`,
      [owner!['id'], count],
    );
    await running.at(-1)!.kill();
    running[running.length - 1] = await jobs();
  }
  const [expired] = await waitFor(async () => {
    const rows = await world.database.query(
      `SELECT count(*)::int AS events, count(DISTINCT token_id)::int AS tokens FROM audit_events
         WHERE action = 'token.expired' AND subject_name = 'mass'`,
    );
    return rows[0]!['tokens'] === rounds * count ? rows : null;
  }, patience);
  expect(expired).toEqual({ events: rounds * count, tokens: rounds * count });
});

test('an invited person, and one who forgot their password, set a password by the link in an email', async () => {
  const email = 'ada+tokens@example.org';
  const person = { email, name: 'Ada <b>', role: 'member' };
  expect((await fetch(`${api}/v1/users`, json(person, { cookie }))).status).toBe(201);
  const options = async () => (await (await fetch(`${api}/v1/session/options`)).json()) as { forgotPassword: boolean };
  await waitFor(async () => (await options()).forgotPassword, patience);
  /** The fragment of the link, which browsers send to no server. */
  const linkOf = async (count: number) => {
    const own = () => mail.received.filter(({ to }) => to.includes(email));
    await waitFor(() => own().length >= count, patience);
    const text = own()[count - 1]!.text.replace(/=\r\n/g, '').replaceAll('=3D', '=');
    expect(text).not.toContain('<b>,</p>');
    const link = new URL(/http\S+#\/reset\?\S+/.exec(text)![0]);
    expect([link.pathname, link.search]).toEqual(['/', '']);
    return new URLSearchParams(link.hash.split('?')[1]);
  };
  const set = async (query: URLSearchParams, newPassword: string) => {
    const body = { email: query.get('email'), code: query.get('code'), newPassword };
    return (await fetch(`${api}/v1/session/reset-password`, json(body))).status;
  };
  const signIn = async (password: string) => (await fetch(`${api}/v1/session`, json({ email, password }))).status;
  expect(await set(await linkOf(1), 'a first password, long')).toBe(204);
  expect(await signIn('a first password, long')).toBe(200);

  expect((await fetch(`${api}/v1/session/forgot-password`, json({ email }))).status).toBe(202);
  const link = await linkOf(2);
  expect(await set(link, 'a second password, long')).toBe(204);
  expect([await signIn('a first password, long'), await signIn('a second password, long')]).toEqual([401, 200]);
  expect(await set(link, 'a third password, long')).toBe(401);
  const rows = await world.database.query<{ n: number }>('SELECT count(*)::int AS n FROM letters');
  expect(rows[0]!.n).toBe(0);
});

test('a worker whose key does not match the public one gets no codes, and logs what to change', async () => {
  const other = await jobs({ JOBS_SEALING_KEY: 'another key of tests with 32 characters or more' });
  running.push(other);
  await waitFor(() => other.logs().includes('no password emails are sent'), patience);
  expect(other.logs()).toContain('its JOBS_SEALING_KEY does not belong to JOBS_SEALING_PUBLIC_KEY');
  expect(other.logs()).not.toContain('a job failed');
});

test('the public half of a key is printed by a command, and a missing key is named', async () => {
  const entry = path.join(import.meta.dirname, '../dist/public-key.js');
  const print = (env: Record<string, string>) => promisify(execFile)(process.execPath, [entry], { env });
  const { stdout } = await print({ JOBS_SEALING_KEY: `${world.encryptionSecret}, ${'previous'.repeat(4)}` });
  expect(stdout).toBe(`${decryptionKey(world.encryptionSecret).text}\n`);
  await expect(print({})).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('JOBS_SEALING_KEY is req'),
  });
});

test('jobs starts with the RPC_SECRET of the previous version, and logs the settings that replace it', async () => {
  const { JOBS_RPC_SECRET } = world.credentials.jobs;
  const old = await jobs({ JOBS_RPC_SECRET: '', RPC_SECRET: JOBS_RPC_SECRET, JOBS_SEALING_KEY: '' });
  running.push(old);
  expect(old.logs()).toContain('RPC_SECRET is deprecated and stands for JOBS_RPC_SECRET in this version only');
  expect(old.logs()).toContain('no password emails are sent, only notices');
});
