import { generateKeyPairSync } from 'node:crypto';
import path from 'node:path';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { type RunningService, spawnService, waitFor } from '@latchkey/testing';
import { World } from './world.js';

const tokenServiceEntry = path.join(import.meta.dirname, '../../token-service/dist/main.js');
const jobsEntry = path.join(import.meta.dirname, '../dist/main.js');
/** Nothing here is about speed: a slow machine is waited for. */
jest.setTimeout(240_000);
const patience = { timeoutMs: 120_000, intervalMs: 100 };

const ADMIN = { email: 'admin@example.org', password: 'the first administrator' };

let world: World;
let api: string;
let rpcAddress: string;
let cookie: string;
const running: RunningService[] = [];

/** Ports of this file's own: below the ones that outgoing connections take. */
const base = 21_000 + (process.pid % 9_000);

beforeAll(async () => {
  world = await World.start();
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
        RPC_SECRET: world.rpcSecret,
        EVENTS_SECRET: world.eventsSecret,
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
  await world[Symbol.asyncDispose]();
});

const jobs = () =>
  spawnService(jobsEntry, world.environment({ RPC_ADDRESS: rpcAddress, LOG_LEVEL: 'info' }), {
    readyText: 'jobs is ready',
    readyTimeoutMs: 120_000,
  });
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
  const answer = await fetch(`${api}/v1/tokens`, json({ name: 'short-lived', ...more }, { cookie }));
  return (await answer.json()) as { id: string };
};

test('a token past its end becomes expired with one audit event, sealed into the chain', async () => {
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
