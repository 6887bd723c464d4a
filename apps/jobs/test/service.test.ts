import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { REDIS } from '@latchkey/contracts';
import { createLogger } from '@latchkey/runtime';
import { type RunningService, spawnService, waitFor } from '@latchkey/testing';
import { Queue } from 'bullmq';
import { QUEUES } from '../src/job.js';
import { SCHEDULE } from '../src/schedule.js';
import { type RunningJobs, startJobs } from '../src/start.js';
import { batch, line, World } from './world.js';

const BOARD_PASSWORD = 'a password for the board';
/** Long, for slow machines: no test here measures time. */
jest.setTimeout(240_000);

const entry = path.join(import.meta.dirname, '../dist/main.js');
const basic = (password: string) => ({ authorization: `Basic ${Buffer.from(`any:${password}`).toString('base64')}` });

let world: World;
let jobs: RunningJobs;
let ops: string;
beforeAll(async () => {
  world = await World.start();
  jobs = await startJobs(world.config({ BOARD_PASSWORD }), createLogger('jobs-test', 'silent'));
  ops = `http://127.0.0.1:${jobs.opsPort}`;
});
afterAll(async () => {
  await jobs.stop();
  await world[Symbol.asyncDispose]();
});

const countedOf = async (token: string) =>
  Number(
    (
      await world.database.query('SELECT coalesce(sum(count), 0) AS n FROM usage_hourly WHERE token_id = $1', [token])
    )[0]!['n'],
  );
const worker = (): Promise<RunningService> =>
  spawnService(entry, world.environment({ LOG_LEVEL: 'info' }), {
    readyText: 'jobs is ready',
    readyTimeoutMs: 120_000,
  });

test('reports that it is alive and ready, with metrics of queue depth, age, failures and run times', async () => {
  expect((await fetch(`${ops}/healthz`)).status).toBe(200);
  expect(await (await fetch(`${ops}/readyz`)).json()).toMatchObject({ status: 'ready' });
  // Nothing listens at RPC_ADDRESS, so that this job fails.
  const failure = /latchkey_job_run_seconds_count\{(?=[^}]*job="expire-due")(?=[^}]*outcome="failed")/;
  const text = await waitFor(
    async () => {
      const metrics = await (await fetch(`${ops}/metrics`)).text();
      return failure.test(metrics) ? metrics : null;
    },
    { timeoutMs: 120_000, intervalMs: 200 },
  );
  for (const name of [
    'latchkey_queue_jobs{queue="usage",state="waiting"',
    'latchkey_queue_oldest_seconds{queue="audit"',
    'latchkey_usage_stream_length',
    'latchkey_audit_unsealed_seconds',
    'latchkey_expiry_overdue_seconds',
    'latchkey_notices_dead',
    'latchkey_siem_dead_letters',
    'latchkey_job_stalled_total',
  ])
    expect(text).toContain(name);
});

test('shows the board only with its password', async () => {
  expect((await fetch(`${ops}/queues`)).status).toBe(401);
  const rejected = await fetch(`${ops}/queues/api/queues`, { headers: basic('another password') });
  expect(rejected.status).toBe(401);
  expect(rejected.headers.get('www-authenticate')).toContain('Basic');
  const page = await fetch(`${ops}/queues`, { headers: basic(BOARD_PASSWORD) });
  expect(page.status).toBe(200);
  expect(await page.text()).toContain('Latchkey jobs');
  expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'self'/);
  const listed = await fetch(`${ops}/queues/api/queues`, { headers: basic(BOARD_PASSWORD) });
  const { queues } = (await listed.json()) as { queues: { name: string }[] };
  expect(queues.map((q) => q.name).sort()).toEqual([...QUEUES].sort());
});

test("rejects a change of the queues by another site's page", async () => {
  for (const headers of [{ 'sec-fetch-site': 'cross-site' }, { origin: 'https://elsewhere.test' }] as Record<
    string,
    string
  >[]) {
    const response = await fetch(`${ops}/queues/api/queues/usage/pause`, {
      method: 'PUT',
      headers: { ...basic(BOARD_PASSWORD), ...headers },
    });
    expect(response.status).toBe(403);
  }
});

test('counts usage batches while the token-service is unavailable', async () => {
  const token = await world.token(await world.person());
  await world.send(world.signed(batch([line(token, { count: 3 })])));
  await waitFor(async () => (await countedOf(token)) === 3, { timeoutMs: 120_000 });
});

test('writes its schedule again after Redis was emptied, and continues', async () => {
  await (await world.stream()).flushall();
  const token = await world.token(await world.person());
  await world.send(world.signed(batch([line(token, { count: 4 })])));
  await waitFor(async () => (await countedOf(token)) === 4, { timeoutMs: 120_000 });
  const found: string[] = [];
  for (const name of QUEUES) {
    const queue = new Queue(name, { connection: { url: world.redis.url }, prefix: REDIS.queues });
    found.push(...(await queue.getJobSchedulers(0, -1)).map((s) => s.key));
    await queue.close();
  }
  expect(found.sort()).toEqual(SCHEDULE.map((job) => job.name).sort());
});

test('recovers when Redis was killed and restarts empty', async () => {
  const token = await world.token(await world.person());
  await world.redis.kill();
  expect((await fetch(`${ops}/readyz`)).status).toBe(503);
  expect((await fetch(`${ops}/healthz`)).status).toBe(200);
  await world.redis.restart();
  await waitFor(async () => (await fetch(`${ops}/readyz`)).status === 200, { timeoutMs: 120_000 });
  await world.send(world.signed(batch([line(token, { count: 6 })])));
  await waitFor(async () => (await countedOf(token)) === 6, { timeoutMs: 120_000 });
});

test('a schedule written by a worker whose clock is ahead is repaired, and no job waits for that time', async () => {
  const queue = new Queue('usage', { connection: { url: world.redis.url }, prefix: REDIS.queues });
  const ahead = Date.now() + 3_600_000;
  await queue.removeJobScheduler('drain-usage');
  await queue.upsertJobScheduler('drain-usage', { every: 1_000, startDate: ahead }, { name: 'drain-usage' });
  const token = await world.token(await world.person());
  await world.send(world.signed(batch([line(token, { count: 5 })])));
  await waitFor(async () => (await countedOf(token)) === 5, { timeoutMs: 120_000 });
  expect((await queue.getJobScheduler('drain-usage'))!.next).toBeLessThan(ahead);
  await queue.close();
});

test('an unknown job fails visibly, and the others continue', async () => {
  const queue = new Queue('usage', { connection: { url: world.redis.url }, prefix: REDIS.queues });
  const poison = await queue.add('of-another-version', { anything: 'x' }, { attempts: 2, backoff: 10 });
  await waitFor(async () => (await poison.getState()) === 'failed', { timeoutMs: 120_000 });
  expect((await queue.getJob(poison.id!))!.failedReason).toContain('no job is called "of-another-version"');
  await poison.remove();
  await queue.close();
  const token = await world.token(await world.person());
  await world.send(world.signed(batch([line(token, { count: 8 })])));
  await waitFor(async () => (await countedOf(token)) === 8, { timeoutMs: 120_000 });
});

test('jobs have no payload', async () => {
  const queue = new Queue('usage', { connection: { url: world.redis.url }, prefix: REDIS.queues });
  const finished = await waitFor(
    async () => {
      const done = await queue.getCompleted(0, 10);
      return done.length > 0 ? done : null;
    },
    { timeoutMs: 120_000 },
  );
  await queue.close();
  for (const job of finished) expect(job.data).toEqual({});
});

test('counts every batch exactly once while workers are killed in the middle', async () => {
  const person = await world.person();
  const tokens = await Promise.all(Array.from({ length: 5 }, () => world.token(person)));
  let expected = 0;
  let sequence = 0;
  const verifier = batch([]).verifier;
  const workers = [await worker(), await worker()];
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 60; i++) {
      const count = 1 + (i % 9);
      expected += count * tokens.length;
      const event = world.signed(
        batch(
          tokens.map((t) => line(t, { count })),
          { verifier, sequence: ++sequence },
        ),
      );
      await world.send(event);
      if (i % 4 === 0) await world.send(event);
    }
    await sleep(300);
    await workers.shift()!.kill();
    workers.push(await worker());
  }
  const total = async () => (await Promise.all(tokens.map(countedOf))).reduce((a, b) => a + b, 0);
  await waitFor(async () => (await total()) === expected && (await (await world.stream()).xlen(REDIS.usage)) === 0, {
    timeoutMs: 120_000,
  });
  for (const process of workers) await process.stop();
  expect(await total()).toBe(expected);
});

test('stops in order on SIGTERM, with what it had begun finished or left for others', async () => {
  const token = await world.token(await world.person());
  const process = await worker();
  for (let i = 0; i < 300; i++) await world.send(world.signed(batch([line(token)])));
  await process.stop(60_000);
  expect(await process.exited).toEqual({ code: 0, signal: null });
  await waitFor(async () => (await countedOf(token)) === 300, { timeoutMs: 120_000 });
});
