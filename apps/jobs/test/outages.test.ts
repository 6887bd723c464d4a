import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { REDIS } from '@latchkey/contracts';
import { createLogger, createRegistry } from '@latchkey/runtime';
import { type FaultyLink, faultyLink, waitFor } from '@latchkey/testing';
import { Queue } from 'bullmq';
import { JobMetrics } from '../src/ops/index.js';
import { type RunningJobs, startJobs } from '../src/start.js';
import { WorkerEvents } from '../src/worker-events.service.js';
import { asJobs, World } from './world.js';

/** Long, for slow machines: no test here measures time. */
jest.setTimeout(240_000);

type Line = { level: string; msg: string; failures?: number };
function logged() {
  const lines: Line[] = [];
  return {
    lines,
    logger: createLogger('jobs', 'info', { write: (line: string) => void lines.push(JSON.parse(line)) }),
  };
}

let world: World;
let link: FaultyLink;
let jobs: RunningJobs;
const { lines, logger } = logged();
beforeAll(async () => {
  world = await World.start();
  link = await faultyLink(world.database.url);
  jobs = await startJobs(world.config({ DATABASE_URL: link.url(asJobs(world.database.url)) }), logger);
});
afterAll(async () => {
  link.heal();
  await jobs.stop();
  await link.close();
  await world[Symbol.asyncDispose]();
});

test('an outage of PostgreSQL is logged once when it begins and once when it is over, with a count', async () => {
  const about = () => lines.filter(({ msg }) => msg.includes('PostgreSQL'));
  link.cut();
  await waitFor(() => about().length > 0, { timeoutMs: 60_000 });
  // Longer than jobs need to fail several times.
  await new Promise((later) => setTimeout(later, 3_000));
  link.heal();
  await waitFor(() => about().length > 1, { timeoutMs: 60_000 });
  expect(about().map(({ msg }) => msg)).toEqual([
    'PostgreSQL is unavailable; jobs fail and are retried',
    'PostgreSQL is available again',
  ]);
  expect(about()[1]!.failures).toBeGreaterThan(1);
  expect(lines.filter(({ level }) => level === 'error')).toEqual([]);
});

test('the gauge of failed jobs falls again', async () => {
  const queue = new Queue('notices', { connection: { url: world.redis.url }, prefix: REDIS.queues });
  const redis = await world.stream();
  const failed = async () => {
    const text = await (await fetch(`http://127.0.0.1:${jobs.opsPort}/metrics`)).text();
    return Number(/^latchkey_queue_jobs\{queue="notices",state="failed"[^}]*\} (\d+)/m.exec(text)![1]);
  };
  const before = await failed();
  await redis.zadd(queue.toKey('failed'), Date.now() - 3_600_000, 'an hour ago');
  expect(await failed()).toBe(before);
  await redis.zadd(queue.toKey('failed'), Date.now(), 'now');
  expect(await failed()).toBe(before + 1);
  await redis.zrem(queue.toKey('failed'), 'an hour ago', 'now');
  await queue.close();
});

test('a job that fails again and again for one reason is logged once, and once when it works again', () => {
  const { lines: some, logger: other } = logged();
  const events = new WorkerEvents(other, new JobMetrics(createRegistry('jobs', '0.0.0')));
  const job = (name: string) => ({ name, opts: { attempts: 3 }, attemptsMade: 1 }) as never;
  for (let i = 0; i < 100; i++) events.failed('usage', job('drain-usage'), new Error('it is broken'));
  events.failed('usage', job('drain-usage'), new Error('it is broken in another way'));
  events.failed('usage', job('prune-usage'), new Error('it is broken'));
  for (const steps of [0, 1, 1]) events.completed('drain-usage', steps);
  expect(some.map(({ level, msg }) => `${level} ${msg}`)).toEqual([
    'error a job failed',
    'error a job failed',
    'error a job failed',
    'info a job that failed works again',
  ]);
});
