/**
 * A worker is killed (SIGKILL) every second while usage arrives and tokens fall due: is everything counted once?
 * `node bench/jobs/killed-workers.mjs [seconds=120]`: prints one line of JSON; ends with code 1 when a count is wrong.
 */
import { REDIS, signUsageBatch, verifierKey } from '@latchkey/contracts';
import { createLogger, createRedis, newId } from '@latchkey/runtime';
import { startStack, until } from './stack.mjs';

const [seconds = 120] = process.argv.slice(2).map(Number);
const stack = await startStack();
const { database } = stack;
const redis = createRedis(stack.redis.url, 'bench', createLogger('bench', 'error'), { enableOfflineQueue: true });
try {
  const tokens = Array.from({ length: 20 }, () => newId());
  const insert = (/** @type {string[]} */ ids, /** @type {string} */ name, /** @type {string} */ end) =>
    database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, scopes, created_at, expires_at)
       SELECT id, sha256(id::text::bytea), 'pat', $2, 'lk_pat_0000', (SELECT id FROM users LIMIT 1), 'system', '{}', now() - interval '1 day', ${end}
       FROM unnest($1::uuid[]) AS id`,
      [ids, name],
    );
  await insert(tokens, 'used', 'NULL');
  const verifier = newId();
  const key = verifierKey(Buffer.from(stack.secrets.EVENTS_SECRET), verifier);
  let sequence = 0;
  let counted = 0;
  let due = 0;
  let kills = 0;
  /** @type {Promise<number>[]} */
  const starting = [];
  const workers = await Promise.all([stack.worker(), stack.worker(), stack.worker()]);
  const ends = performance.now() + seconds * 1000;
  while (performance.now() < ends) {
    const tick = performance.now();
    for (let i = 0; i < 20; i++) {
      const now = Date.now();
      const lines = tokens.map((tokenId) => ({
        tokenId,
        hourMs: Math.floor(now / 3_600_000) * 3_600_000,
        route: 'demo',
        status: /** @type {const} */ ('allowed'),
        ip: '192.0.2.1',
        userAgent: 'bench',
        count: 1 + (i % 7),
        firstSeenMs: now,
        lastSeenMs: now,
      }));
      counted += tokens.length * (1 + (i % 7));
      const event = signUsageBatch(key, { verifier, sequence: ++sequence, lines, denials: [], denialsDropped: 0 });
      // Every fifth batch is sent twice, as a verifier does that did not hear the first answer.
      for (let times = i % 5 === 0 ? 2 : 1; times > 0; times--)
        await redis.xadd(REDIS.usage, '*', 'verifier', event.verifier, 'body', event.body, 'mac', event.mac);
    }
    await insert(
      Array.from({ length: 50 }, () => newId()),
      'due',
      'now()',
    );
    due += 50;
    // On a busy machine a worker takes longer than a second to start: one is always left to go on.
    const victim = workers.length > 1 ? workers.shift() : undefined;
    if (victim) {
      await victim.kill();
      kills++;
      starting.push(stack.worker().then((worker) => workers.push(worker)));
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 1_000 - (performance.now() - tick))));
  }
  await Promise.all(starting);
  const read = async () =>
    (
      await database.query(
        `SELECT (SELECT coalesce(sum(count), 0) FROM usage_hourly)::int AS counted,
           (SELECT coalesce(sum(usage_count), 0) FROM token_usage)::int AS used,
           (SELECT count(*) FROM audit_events WHERE action = 'token.expired')::int AS events,
           (SELECT count(DISTINCT token_id) FROM audit_events WHERE action = 'token.expired')::int AS expired`,
      )
    )[0];
  const limit = performance.now() + 60_000;
  await until(async () => {
    const now = await read();
    return (
      (now?.['counted'] >= counted && now?.['expired'] >= due && (await redis.xlen(REDIS.usage)) === 0) ||
      performance.now() > limit
    );
  });
  const got = await read();
  const verdict = await (await fetch(`${stack.apiUrl}/v1/audit/verify`, { headers: { cookie: stack.cookie } })).json();
  const exact =
    got?.['counted'] === counted && got?.['used'] === counted && got?.['events'] === due && got?.['expired'] === due;
  console.log(JSON.stringify({ seconds, kills, sent: { counted, due }, got, exact, chain: verdict }));
  if (!exact || !verdict.ok) process.exitCode = 1;
  await Promise.all(workers.map((worker) => worker.stop()));
} finally {
  redis.disconnect();
  await stack.stop();
}
