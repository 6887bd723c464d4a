import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { MIGRATIONS } from '@latchkey/contracts';
import { createLogger, StartError } from '@latchkey/runtime';
import { faultyLink, freePorts, testDatabase, testRedis, waitFor } from '@latchkey/testing';
import { VERSION } from '../src/config.js';
import { startJobs } from '../src/start.js';
import { asJobs, World } from './world.js';

/** Long, for slow machines: no test here measures time. */
jest.setTimeout(240_000);

let world: World;
beforeAll(async () => {
  world = await World.start();
});
afterAll(() => world[Symbol.asyncDispose]());

/** A logger, and its lines so far. */
function logged() {
  const lines: { level: string; msg: string }[] = [];
  return {
    lines,
    logger: createLogger('jobs', 'info', { write: (line: string) => void lines.push(JSON.parse(line)) }),
  };
}

test('jobs does not start on a database without its schema, and says which migration is missing and what to run', async () => {
  await using bare = await testDatabase();
  const starting = startJobs(world.config({ DATABASE_URL: bare.url }), logged().logger);
  await expect(starting).rejects.toBeInstanceOf(StartError);
  await expect(starting).rejects.toThrow(
    `the database lacks migrations of version ${VERSION}, first ${MIGRATIONS[0]}.`,
  );
});

test('jobs waits at the start until PostgreSQL is available, and says so once', async () => {
  const link = await faultyLink(world.database.url);
  link.cut();
  const { lines, logger } = logged();
  const starting = startJobs(world.config({ DATABASE_URL: link.url(asJobs(world.database.url)) }), logger);
  try {
    await waitFor(() => lines.length > 0, { timeoutMs: 60_000 });
    link.heal();
    await (await starting).stop();
  } finally {
    await link.close();
  }
  const messages = lines.map(({ msg }) => msg);
  expect(messages.filter((msg) => msg.includes('PostgreSQL'))).toEqual([
    'PostgreSQL is unavailable; retrying',
    'PostgreSQL is available',
  ]);
});

test('jobs does not start with a Redis in cluster mode, and says so', async () => {
  const [port] = await freePorts(1);
  await using cluster = await testRedis(['cluster-enabled yes', `cluster-port ${port}`]);
  const starting = startJobs(world.config({ REDIS_URL: cluster.url }), logged().logger);
  await expect(starting).rejects.toBeInstanceOf(StartError);
  await expect(starting).rejects.toThrow('Redis runs in cluster mode (cluster_enabled:1), which is not supported');
});

test('jobs warns of a Redis that removes keys when its memory is full, and starts', async () => {
  await using redis = await testRedis(['maxmemory-policy allkeys-lru']);
  const { lines, logger } = logged();
  await (await startJobs(world.config({ REDIS_URL: redis.url }), logger)).stop();
  expect(lines).toContainEqual(expect.objectContaining({ level: 'warn', maxmemoryPolicy: 'allkeys-lru' }));
});
