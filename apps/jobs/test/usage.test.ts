import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { FIRST_PARTY_CALLER, REDIS, type UsageBatch, usageFields } from '@latchkey/contracts';
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

const own = (batch: UsageBatch) => ({ batch, caller: FIRST_PARTY_CALLER });

test('counts verdicts by hour, route and status, callers by address and agent, and stores the last use', async () => {
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

test('an address that PostgreSQL cannot store loses nothing', async () => {
  const token = await world.token(await world.person());
  const denials = [
    { requestId: newId(), atMs: Date.now(), reason: 'revoked', tokenId: token, route: 'r', method: 'GET' },
  ];
  const odd = {
    ...batch([line(token, { ip: '\0' }), line(token, { ip: '\uD800' })]),
    denials: [{ ...denials[0]!, ip: '\0' }],
  };
  await world.send(world.signed(odd as UsageBatch));
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(2);
  expect(await world.database.query('SELECT 1 FROM denials WHERE token_id = $1', [token])).toHaveLength(1);
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

test('usage that was signed before USAGE_SECRET was replaced still counts, and none once the secret has left the list', async () => {
  const token = await world.token(await world.person());
  const caller = `token:${newId()}`;
  const now = 'the usage secret after the rotation 0123456789';
  const ofThirdParty = () => world.signed({ ...batch([line(token)]), tickets: [world.ticket(caller, token)] }, caller);
  await world.send(world.signed(batch([line(token, { count: 7 })])));
  await world.send(ofThirdParty());
  await world.run(drainUsage, { USAGE_SECRET: `${now},${world.usageSecret}` });
  expect(await countedOf(token)).toBe(8);
  await world.send(world.signed(batch([line(token, { count: 7 })])));
  await world.send(ofThirdParty());
  await world.run(drainUsage, { USAGE_SECRET: now });
  expect(await countedOf(token)).toBe(8);
});

test('counts a batch once when workers process it concurrently', async () => {
  const token = await world.token(await world.person());
  const context = await world.contextWith();
  const repeated = batch([line(token, { count: 7 })]);
  const outcomes = await Promise.all(Array.from({ length: 6 }, () => applyBatch(context, own(repeated))));
  expect(outcomes.filter((o) => o === 'applied')).toHaveLength(1);
  expect(await countedOf(token)).toBe(7);
});

test('concurrent batches with the same tokens in another order cause no deadlock', async () => {
  const person = await world.person();
  const tokens = await Promise.all(Array.from({ length: 20 }, () => world.token(person)));
  const context = await world.contextWith();
  const batches = Array.from({ length: 16 }, (_, i) =>
    batch((i % 2 ? tokens : [...tokens].reverse()).map((t) => line(t))),
  );
  await Promise.all(batches.map((b) => applyBatch(context, own(b))));
  expect(await Promise.all(tokens.map(countedOf))).toEqual(tokens.map(() => 16));
});

test('what a worker had read when it was killed is counted by another', async () => {
  const token = await world.token(await world.person());
  await world.send(world.signed(batch([line(token, { count: 9 })])));
  const context = await world.contextWith();
  const taken = await nextBatches(context, 10); // and never acknowledged: this worker is dead
  expect(taken).toHaveLength(1);
  const redis = await world.stream();
  await redis.call('XCLAIM', REDIS.usage, REDIS.usageGroup, 'dead-worker', '0', taken[0]!.id, 'IDLE', '60000');
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(9);
  expect(await redis.xlen(REDIS.usage)).toBe(0);
});

const outcomes = async (outcome: string) => {
  const { metrics } = await world.contextWith();
  const { values } = await metrics.usageBatches.get();
  return values.find(({ labels }) => labels['outcome'] === outcome)?.value ?? 0;
};

type Valid = ReturnType<World['signed']>;
const bodyWith = ({ body }: Valid, over: object) => JSON.stringify({ ...JSON.parse(body), ...over });
const fields = (event: Valid, over: Partial<Valid>) => usageFields({ ...event, ...over });

test.each<[string, 'malformed' | 'not_authentic', (valid: Valid) => string[]]>([
  ['a count changed', 'not_authentic', (e) => fields(e, { body: e.body.replace('"count":1', '"count":1000') })],
  ['another verifier named', 'not_authentic', (e) => fields(e, { verifier: newId() })],
  ['another caller named', 'not_authentic', (e) => fields(e, { caller: `token:${newId()}` })],
  ['no signature', 'not_authentic', (e) => fields(e, { mac: '' })],
  ['the signature of another batch', 'not_authentic', (e) => fields(e, { mac: world.signed(batch([])).mac })],
  ['a truncated body', 'not_authentic', (e) => fields(e, { body: e.body.slice(0, -10) })],
  ['a body over the limit', 'malformed', (e) => fields(e, { body: `${e.body}${' '.repeat(6_000_000)}` })],
  ['an invalid caller', 'malformed', (e) => fields(e, { caller: 'administrator' })],
  ['an invalid id', 'malformed', (e) => fields(e, { verifier: 'x' })],
  ['unknown fields', 'malformed', () => ['something', 'else']],
  ['an additional field', 'malformed', (e) => [...usageFields(e), 'more', '1']],
  ['an odd number of fields', 'malformed', () => ['verifier', newId()]],
])('a message with %s is dropped with a metric, and the next is counted', async (_, reason, forge) => {
  const token = await world.token(await world.person());
  const before = await outcomes(reason);
  await world.sendFields(forge(world.signed(batch([line(token)]))));
  await world.send(world.signed(batch([line(token, { count: 3 })])));
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(3);
  expect(await outcomes(reason)).toBe(before + 1);
  expect(await (await world.stream()).xlen(REDIS.usage)).toBe(0);
});

test.each<[string, (token: string) => object]>([
  ['a count over the limit', (token) => ({ lines: [line(token, { count: 2 ** 53 - 1 })] })],
  ['a count of 0', (token) => ({ lines: [line(token, { count: 0 })] })],
  ['a negative hour', (token) => ({ lines: [line(token, { hourMs: -1 })] })],
  ['a route too long', (token) => ({ lines: [line(token, { route: 'x'.repeat(101) })] })],
  ['an unknown status', (token) => ({ lines: [{ ...line(token), status: 'gone' }] })],
  ['too many lines', (token) => ({ lines: Array.from({ length: 5_001 }, () => line(token)) })],
  ['an additional field', () => ({ extra: 1 })],
])('a batch with %s is dropped although its verifier signed it', async (_, over) => {
  const token = await world.token(await world.person());
  const before = await outcomes('malformed');
  const body = bodyWith(world.signed(batch([])), over(token));
  await world.send(world.signed(JSON.parse(body)));
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(0);
  expect(await outcomes('malformed')).toBe(before + 1);
});

test('a batch of a verifier of version 0.1, which names no caller, counts as first-party', async () => {
  const token = await world.token(await world.person());
  const { verifier, body, mac } = world.signed(batch([line(token, { count: 4 })]));
  await world.sendFields(['verifier', verifier, 'body', body, 'mac', mac]);
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(4);
});

test('of a third party, only what it looked up counts, with limited counts and prefixed routes', async () => {
  const person = await world.person();
  const [seen, unseen, others] = [await world.token(person), await world.token(person), await world.token(person)];
  const caller = `token:${newId()}`;
  const denial = (tokenId: string | null) => ({
    requestId: newId(),
    atMs: Date.now(),
    reason: 'revoked' as const,
    tokenId,
    route: 'theirs',
    method: 'GET',
    ip: '192.0.2.1',
  });
  const denials = [denial(seen), denial(unseen), denial(null)];
  const tickets = [world.ticket(caller, seen), world.ticket(`token:${newId()}`, others)];
  const lines = [
    line(seen, { count: 1_000_000_000, route: 'theirs' }),
    line(unseen, { count: 7 }),
    line(others, { count: 7 }),
  ];
  const { metrics } = await world.contextWith();
  const dropped = async () => (await metrics.thirdPartyLinesDropped.get()).values[0]!.value;
  const before = await dropped();
  await world.send(world.signed(batch(lines, { denials, tickets }), caller));
  await world.run(drainUsage);
  expect(await Promise.all([seen, unseen, others].map(countedOf))).toEqual([100_000, 0, 0]);
  expect(await world.database.query('SELECT route FROM usage_hourly WHERE token_id = $1', [seen])).toEqual([
    { route: 'external: theirs' },
  ]);
  const stored = await world.database.query('SELECT token_id, route FROM denials WHERE request_id = ANY ($1)', [
    denials.map(({ requestId }) => requestId),
  ]);
  expect(stored).toEqual([{ token_id: seen, route: 'external: theirs' }]);
  expect(await dropped()).toBe(before + 4);
});

test('continues after Redis was emptied, with what verifiers sent since', async () => {
  const token = await world.token(await world.person());
  await world.run(drainUsage);
  await (await world.stream()).flushall();
  await world.send(world.signed(batch([line(token, { count: 2 })])));
  await world.run(drainUsage);
  expect(await countedOf(token)).toBe(2);
});

test('skips tokens that do not exist, and stores the rest despite text that PostgreSQL cannot store', async () => {
  const token = await world.token(await world.person());
  const unknown = newId();
  await world.send(
    world.signed(batch([line(unknown, { count: 5 }), line(token, { userAgent: 'a\0b\ud800', count: 2 })])),
  );
  await world.run(drainUsage);
  expect(await countedOf(unknown)).toBe(0);
  expect(await countedOf(token)).toBe(2);
});

test('stores denials by request id, for no longer than 24 hours', async () => {
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

test('keeps only the latest callers of a token that is used with ever new user agents', async () => {
  const token = await world.token(await world.person());
  const context = await world.contextWith();
  const lines = Array.from({ length: CALLERS_PER_TOKEN_MAX + 100 }, (_, i) =>
    line(token, { userAgent: `agent ${i}`, lastSeenMs: Date.now() - i * 1_000 }),
  );
  await applyBatch(context, own(batch(lines)));
  await world.run(pruneUsage);
  const rows = await world.database.query('SELECT user_agent FROM usage_callers WHERE token_id = $1', [token]);
  expect(rows).toHaveLength(CALLERS_PER_TOKEN_MAX);
  expect(rows.map((r) => r['user_agent'])).toContain('agent 0');
});
