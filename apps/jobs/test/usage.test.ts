import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { REDIS } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { drainUsage } from '../src/usage/drain-usage.job.js';
import { CALLERS_PER_TOKEN_MAX, pruneUsage } from '../src/usage/prune-usage.job.js';
import { nextBatches } from '../src/usage/stream.js';
import { applyBatch } from '../src/usage/usage.service.js';
import { batch, line, World } from './world.js';

let world: World;
beforeAll(async () => {
  world = await World.start();
});
afterAll(() => world[Symbol.asyncDispose]());

const usedOf = async (token: string) =>
  (
    await world.database.query<{ usage_count: string; last_used_ip: string; last_used_at: Date }>(
      'SELECT usage_count, last_used_ip, last_used_at FROM token_usage WHERE token_id = $1',
      [token],
    )
  )[0];
const countedOf = async (token: string) =>
  Number(
    (
      await world.database.query('SELECT coalesce(sum(count), 0) AS n FROM usage_hourly WHERE token_id = $1', [token])
    )[0]!['n'],
  );

test('adds verdicts up by hour, route and status, callers by address and agent, and notes the last use', async () => {
  const token = await world.token(await world.person());
  const at = Date.now();
  await world.send(
    world.signed(
      batch([
        line(token, { count: 3, lastSeenMs: at - 500 }),
        line(token, { count: 4, ip: '192.0.2.9', lastSeenMs: at }),
        line(token, { count: 2, status: 'insufficient_scope', ip: '198.51.100.7', lastSeenMs: at }),
      ]),
    ),
  );
  await world.send(world.signed(batch([line(token, { count: 5, lastSeenMs: at - 900 })])));
  await world.run(drainUsage);
  expect(
    await world.database.query(
      'SELECT route, status, count::int FROM usage_hourly WHERE token_id = $1 ORDER BY status',
      [token],
    ),
  ).toEqual([
    { route: 'demo', status: 'allowed', count: 12 },
    { route: 'demo', status: 'insufficient_scope', count: 2 },
  ]);
  expect(
    await world.database.query('SELECT ip, count::int FROM usage_callers WHERE token_id = $1 ORDER BY ip', [token]),
  ).toEqual([
    { ip: '192.0.2.1', count: 8 },
    { ip: '192.0.2.9', count: 4 },
    { ip: '198.51.100.7', count: 2 },
  ]);
  const used = await usedOf(token);
  expect(used).toEqual({ usage_count: '12', last_used_ip: '192.0.2.9', last_used_at: new Date(at) });
});

test('counts a batch once however often it is sent', async () => {
  const token = await world.token(await world.person());
  const event = world.signed(batch([line(token, { count: 7 })]));
  for (let i = 0; i < 3; i++) await world.send(event);
  await world.run(drainUsage);
  await world.send(event);
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(7);
});

test('counts a batch once when two workers add it up at the same time', async () => {
  const token = await world.token(await world.person());
  const context = await world.contextWith();
  const repeated = batch([line(token, { count: 7 })]);
  const outcomes = await Promise.all(Array.from({ length: 6 }, () => applyBatch(context, repeated)));
  expect(outcomes.filter((o) => o === 'applied')).toHaveLength(1);
  expect(await countedOf(token)).toBe(7);
});

test('batches that name the same tokens in another order are added up side by side without a deadlock', async () => {
  const person = await world.person();
  const tokens = await Promise.all(Array.from({ length: 20 }, () => world.token(person)));
  const context = await world.contextWith();
  const batches = Array.from({ length: 16 }, (_, i) =>
    batch((i % 2 ? tokens : [...tokens].reverse()).map((t) => line(t))),
  );
  await Promise.all(batches.map((b) => applyBatch(context, b)));
  expect(await Promise.all(tokens.map(countedOf))).toEqual(tokens.map(() => 16));
});

test('what a worker had taken when it was killed is added up by another', async () => {
  const token = await world.token(await world.person());
  await world.send(world.signed(batch([line(token, { count: 9 })])));
  const context = await world.contextWith();
  const taken = await nextBatches(context, 10); // and then nothing: this worker is dead
  expect(taken).toHaveLength(1);
  const redis = await world.stream();
  await redis.call('XCLAIM', REDIS.usage, REDIS.usageGroup, 'dead-worker', '0', taken[0]!.id, 'IDLE', '60000');
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(9);
  expect(await redis.xlen(REDIS.usage)).toBe(0);
});

test('drops a batch that was not signed by its verifier, or that is no batch', async () => {
  const token = await world.token(await world.person());
  const honest = world.signed(batch([line(token)]));
  await world.send({ ...honest, body: honest.body.replace('"count":1', '"count":1000') });
  await world.send({ ...honest, verifier: newId() });
  await world.send({ ...honest, mac: '' });
  await (await world.stream()).xadd(REDIS.usage, '*', 'something', 'else');
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(0);
  expect(await (await world.stream()).xlen(REDIS.usage)).toBe(0);
});

test('goes on after Redis was emptied, with what verifiers sent since', async () => {
  const token = await world.token(await world.person());
  await world.run(drainUsage);
  await (await world.stream()).flushall();
  await world.send(world.signed(batch([line(token, { count: 2 })])));
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(2);
});

test('leaves out tokens that do not exist, and text that PostgreSQL cannot hold does not stop the rest', async () => {
  const token = await world.token(await world.person());
  const stranger = newId();
  await world.send(
    world.signed(batch([line(stranger, { count: 5 }), line(token, { userAgent: 'a\0b\ud800', count: 2 })])),
  );
  await world.run(drainUsage);
  expect(await countedOf(stranger)).toBe(0);
  expect(await countedOf(token)).toBe(2);
});

test('keeps denials so that a request can be looked up, and for no longer than 24 hours', async () => {
  const denial = {
    requestId: newId(),
    atMs: Date.now(),
    reason: 'expired' as const,
    tokenId: null,
    route: 'demo',
    method: 'GET',
    ip: '192.0.2.1',
  };
  const old = { ...denial, requestId: newId(), atMs: Date.now() - 25 * 3_600_000 };
  await world.send(world.signed(batch([], { denials: [denial, old] })));
  await world.run(drainUsage);
  await world.run(pruneUsage);
  const rows = await world.database.query('SELECT request_id, reason FROM denials WHERE request_id = ANY($1)', [
    [denial.requestId, old.requestId],
  ]);
  expect(rows).toEqual([{ request_id: denial.requestId, reason: 'expired' }]);
});

test('keeps the callers seen last of a token that is called under ever new names', async () => {
  const token = await world.token(await world.person());
  const context = await world.contextWith();
  const lines = Array.from({ length: CALLERS_PER_TOKEN_MAX + 100 }, (_, i) =>
    line(token, { userAgent: `agent ${i}`, lastSeenMs: Date.now() - i * 1_000 }),
  );
  await applyBatch(context, batch(lines));
  await world.run(pruneUsage);
  const rows = await world.database.query('SELECT user_agent FROM usage_callers WHERE token_id = $1', [token]);
  expect(rows).toHaveLength(CALLERS_PER_TOKEN_MAX);
  expect(rows.map((r) => r['user_agent'])).toContain('agent 0');
});
