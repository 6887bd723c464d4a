/** Requests through real gateways: is each verdict in the database, once? See `--help`. */
import { REDIS } from '@latchkey/contracts';
import { createLogger, createRedis } from '@latchkey/runtime';
import { Pool } from 'undici';
import { options } from '../lib/options.mjs';
import { report } from '../lib.mjs';
import { secondsSince, sleep, startStack, until } from './stack.mjs';

/** Verdicts that can be lost with a Redis that dies and restarts empty: this much of the traffic, in seconds. */
const LOSS_SECONDS_MAX = 3;

const choice = options(
  'usage',
  `Requests of many tokens through several gateways, some refused: for lack of a scope, and because the token is revoked.
Compares what callers received with the totals in the database, by token, route and verdict. Then again while Redis
is killed (SIGKILL) and comes back empty: what is lost must stay below ${LOSS_SECONDS_MAX} s of traffic.`,
  {
    requests: [200_000, 'requests of the first part, where every verdict must be counted'],
    rest: [60_000, 'requests of the second part, in the middle of which Redis is killed'],
    gateways: [3, 'gateways'],
    tokens: [30, 'tokens; every tenth is revoked before'],
    callers: [24, 'requests under way at one time'],
  },
);
const stack = await startStack();
const redis = createRedis(stack.redis.url, 'bench', createLogger('bench', 'silent'), { enableOfflineQueue: true });
const gateways = await Promise.all(Array.from({ length: choice.gateways }, () => stack.gateway()));
const worker = await stack.worker();
const pools = gateways.map(({ url }) => new Pool(url, { connections: Math.ceil(choice.callers / choice.gateways) }));

const tokens = [];
for (let i = 0; i < choice.tokens; i++) {
  const token = await stack.call('POST', '/v1/tokens', {
    name: `counted ${i}`,
    ...(i % 3 === 0 && { scopes: ['demo:read'] }),
  });
  const revoked = i % 10 === 9;
  if (revoked) await stack.call('POST', `/v1/tokens/${token.id}/revoke`, {});
  tokens.push({ id: token.id, secret: token.secret, revoked, mayRead: i % 3 === 0 });
}
/** What callers received, by `token route verdict`. @type {Map<string, number>} */
const received = new Map();
/** Requests without a response: they may have been counted or not. */
let broken = 0;

/** @param {number} count */
async function send(count) {
  let next = 0;
  const caller = async () => {
    for (let n = next++; n < count; n = next++) {
      const token = tokens[n % tokens.length];
      const route = n % 4 === 0 ? 'guarded' : 'demo';
      const verdict = token.revoked
        ? 'revoked'
        : route === 'guarded' && !token.mayRead
          ? 'insufficient_scope'
          : 'allowed';
      const expected = { allowed: 200, insufficient_scope: 403, revoked: 401 }[verdict];
      const headers = { authorization: `Bearer ${token.secret}` };
      const response = await pools[n % pools.length]
        .request({ path: `/${route}/x`, method: 'GET', headers })
        .catch(() => null);
      if (!response) {
        broken++;
        continue;
      }
      await response.body.dump();
      if (response.statusCode !== expected)
        throw new Error(`${route} returned ${response.statusCode}, not ${expected}`);
      const key = `${token.id} ${route} ${verdict}`;
      received.set(key, (received.get(key) ?? 0) + 1);
    }
  };
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: choice.callers }, caller));
  return { perSecond: count / ((performance.now() - startedAt) / 1_000), seconds: secondsSince(startedAt) };
}

async function counted() {
  const rows = await stack.database.query(
    'SELECT token_id, route, status, sum(count)::int AS n FROM usage_hourly GROUP BY 1, 2, 3',
  );
  return new Map(rows.map(({ token_id, route, status, n }) => [`${token_id} ${route} ${status}`, n]));
}
const total = (/** @type {Map<string, number>} */ map) => [...map.values()].reduce((a, b) => a + b, 0);

/** Until gateways have sent all and the worker has added it up: the totals stand still. */
async function settledTotals() {
  let last = -1;
  await until(async () => {
    const now = total(await counted());
    const still = now === last && (await redis.xlen(REDIS.usage)) === 0;
    last = now;
    return still;
  }, 4_000);
  return counted();
}

try {
  const steady = await send(choice.requests);
  const exact = await settledTotals();
  const differing = [...new Set([...received.keys(), ...exact.keys()])].filter(
    (key) => received.get(key) !== exact.get(key),
  );
  report(`requests through ${choice.gateways} gateways`, total(received));
  report('requests a second', steady.perSecond);
  report('counted in the database', total(exact));
  report('token, route and verdict whose total differs', differing.length, 0);
  const ids = tokens.map(({ id }) => id);
  const used = await stack.count('SELECT sum(usage_count) FROM token_usage WHERE token_id = ANY ($1)', [ids]);
  const allowed = [...received].filter(([key]) => key.endsWith(' allowed')).reduce((sum, [, n]) => sum + n, 0);
  report('difference of the tokens’ own counts', Math.abs(used - allowed), 0);

  const before = total(received);
  const sending = send(choice.rest);
  await sleep((choice.rest / steady.perSecond / 2) * 1_000);
  await stack.redis.kill();
  await sleep(2_000);
  await stack.redis.restart();
  const { perSecond } = await sending;
  const after = await settledTotals();
  const lost = total(received) - total(after);
  report('Redis killed: requests', total(received) - before);
  report('Redis killed: requests without a response', broken, 0);
  report('Redis killed: verdicts lost', lost);
  report('Redis killed: lost, as time of traffic', lost / perSecond, LOSS_SECONDS_MAX, ' s');
  const doubled = [...after].filter(([key, n]) => n > (received.get(key) ?? 0)).length;
  report('Redis killed: token, route and verdict counted too often', doubled, 0);
} finally {
  await Promise.all(pools.map((pool) => pool.close()));
  await worker.stop();
  await Promise.all(gateways.map((gateway) => gateway.stop()));
  redis.disconnect();
  await stack.stop();
}
