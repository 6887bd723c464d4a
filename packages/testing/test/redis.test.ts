import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { type TestRedis, testRedis, waitFor } from '../src/index.js';

let redis: TestRedis;
let client: Redis;

beforeEach(async () => {
  redis = await testRedis();
  client = new Redis(redis.url, { maxRetriesPerRequest: null, retryStrategy: () => 20 });
  client.on('error', () => undefined);
});

afterEach(async () => {
  client.disconnect();
  await redis.close();
});

test('two servers share nothing', async () => {
  await using other = await testRedis();
  const otherClient = new Redis(other.url);
  await client.set('a', '1');
  expect(await otherClient.get('a')).toBeNull();
  otherClient.disconnect();
});

test('a killed server drops its connections, and comes back empty at the same address', async () => {
  await client.set('a', '1');
  const dropped = new Promise((resolve) => client.once('close', resolve));
  await redis.kill();
  await dropped;
  await redis.restart();
  expect(await client.get('a')).toBeNull();
});

test('a paused server keeps its connections and replies when it is resumed', async () => {
  await client.ping();
  redis.pause();
  let replied = false;
  const reply = client.ping().then(() => {
    replied = true;
  });
  await sleep(200);
  expect(replied).toBe(false);
  expect(client.status).toBe('ready');
  redis.resume();
  await reply;
});

test('a paused server can be closed', async () => {
  redis.pause();
  await redis.close();
  await waitFor(() => client.status !== 'ready', { what: 'the connection ending' });
});
