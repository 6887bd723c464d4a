/** A worker is killed (SIGKILL) every second while everything is at work: is each thing counted once? See `--help`. */
import { FIRST_PARTY_CALLER, REDIS, signUsageBatch, usageFields, usageKey } from '@latchkey/contracts';
import { createLogger, createRedis, newId } from '@latchkey/runtime';
import { options } from '../lib/options.mjs';
import { report } from '../lib.mjs';
import { mailServer, webhookReceiver } from './receivers.mjs';
import { secondsSince, sleep, startStack, until } from './stack.mjs';

const choice = options(
  'killed-workers',
  `Every second one of several workers is killed (SIGKILL) and another started, while usage arrives (every fifth batch
twice), tokens fall due, and notices of both go out by email and webhook. Counts what was lost and what was doubled.
A delivery whose worker was killed between sending and noting it is sent again under the same id: those are counted.`,
  {
    seconds: [120, 'for how long'],
    workers: [5, 'workers kept running'],
    due: [30, 'tokens that fall due each second'],
    waitSeconds: [
      240,
      'how long the rest can take after the last kill; what a dead worker was sending is due again after 120',
    ],
  },
);
process.setMaxListeners(0); // one for each worker that runs
const [mail, hook] = await Promise.all([mailServer(), webhookReceiver()]);
const stack = await startStack();
const { database } = stack;
const redis = createRedis(stack.redis.url, 'bench', createLogger('bench', 'error'), { enableOfflineQueue: true });
const startWorker = () =>
  stack.worker({
    SMTP_URL: mail.url,
    NOTICE_WEBHOOK_URL: hook.url,
    NOTICE_WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, 7).toString('base64')}`,
  });
const tokens = Array.from({ length: 20 }, () => newId());
const verifier = newId();
const caller = FIRST_PARTY_CALLER;
const key = usageKey(Buffer.from(stack.secrets.USAGE_SECRET), { verifierId: verifier, caller });
const sent = { batches: 0, verdicts: 0, due: 0, addresses: 0 };

const insert = (/** @type {string[]} */ ids, /** @type {string} */ name, /** @type {string} */ end) =>
  database.query(
    `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, scopes, created_at, expires_at)
     SELECT id, sha256(id::text::bytea), 'pat', $2, 'lk_pat_0000', (SELECT id FROM users LIMIT 1), 'system', '{}', now() - interval '1 day', ${end}
     FROM unnest($1::uuid[]) AS id`,
    [ids, name],
  );

/** A second of a busy verifier: twenty batches, one of them with an address that its token was never used from. */
async function sendUsage(/** @type {number} */ second) {
  for (let i = 0; i < 20; i++) {
    const now = Date.now();
    const fresh = second > 0 && i === 0 ? tokens[second % tokens.length] : undefined;
    if (fresh) sent.addresses++;
    const count = 1 + (i % 7);
    const lines = tokens.map((tokenId) => ({
      tokenId,
      hourMs: Math.floor(now / 3_600_000) * 3_600_000,
      route: 'demo',
      status: /** @type {const} */ ('allowed'),
      ip: tokenId === fresh ? `2001:db8::${second.toString(16)}` : '192.0.2.1',
      userAgent: 'bench',
      count,
      firstSeenMs: now,
      lastSeenMs: now,
    }));
    sent.verdicts += tokens.length * count;
    const batch = { verifier, sequence: ++sent.batches, lines, denials: [], denialsDropped: 0 };
    const fields = usageFields(signUsageBatch(key, caller, batch));
    // As a verifier does that did not receive the first response.
    for (let times = i % 5 === 0 ? 2 : 1; times > 0; times--) await redis.xadd(REDIS.usage, '*', ...fields);
  }
}

/** @type {Awaited<ReturnType<typeof startWorker>>[]} */
const ready = [];
/** @type {Promise<unknown>[]} */
const starting = [];
const startMs = /** @type {number[]} */ ([]);
const start = () => {
  const at = performance.now();
  const started = startWorker().then((worker) => {
    startMs.push(performance.now() - at);
    ready.push(worker);
  });
  starting.push(started);
  return started;
};

try {
  await insert(tokens, 'used', 'NULL');
  for (let i = 0; i < choice.workers; i++) await start();
  let kills = 0;
  let fewest = ready.length;
  const begun = performance.now();
  for (let second = 0; second < choice.seconds; second++) {
    await sendUsage(second);
    await insert(Array.from({ length: choice.due }, newId), 'due', 'now()');
    sent.due += choice.due;
    await sleep(Math.max(0, begun + (second + 1) * 1_000 - performance.now()));
    fewest = Math.min(fewest, ready.length);
    const [victim] = ready.splice(Math.floor(Math.random() * ready.length), 1);
    if (!victim) continue;
    void victim.kill();
    kills++;
    void start();
  }
  const underFire = secondsSince(begun);
  await Promise.all(starting);
  const due = `SELECT count(*) FROM notice_deliveries WHERE state <> 'sent'`;
  const expired = `SELECT count(*) FROM audit_events WHERE action = 'token.expired'`;
  const notices = "SELECT count(*) FROM notices WHERE kind IN ('expired', 'new_address')";
  const limit = performance.now() + choice.waitSeconds * 1_000;
  await until(
    async () =>
      performance.now() > limit ||
      ((await redis.xlen(REDIS.usage)) === 0 &&
        (await stack.count(expired)) >= sent.due &&
        (await stack.count(notices)) >= sent.due + sent.addresses &&
        (await stack.count(due)) === 0),
    1_000,
  );

  const verdict = await stack.call('GET', '/v1/audit/verify');
  const events = await stack.count(expired);
  const distinct = await stack.count(
    "SELECT count(DISTINCT token_id) FROM audit_events WHERE action = 'token.expired'",
  );
  const counted = await stack.count('SELECT sum(count) FROM usage_hourly');
  const used = await stack.count('SELECT sum(usage_count) FROM token_usage');
  console.log(
    `  ${kills} kills in ${underFire} s; a worker took ${Math.round(startMs.reduce((a, b) => a + b) / startMs.length)} ms to start; never fewer than ${fewest} ready`,
  );
  report('seconds without a kill', choice.seconds - kills, 0);
  report(`verdicts lost or doubled, of ${sent.verdicts} (by hour)`, Math.abs(counted - sent.verdicts), 0);
  report('verdicts lost or doubled (by token)', Math.abs(used - sent.verdicts), 0);
  report(`expiries lost, of ${sent.due}`, sent.due - distinct, 0);
  report('expiries recorded twice in the audit log', events - distinct, 0);
  const raised = await database.query('SELECT kind, count(*)::int AS n FROM notices GROUP BY 1 ORDER BY 1');
  const of = (/** @type {string} */ kind) => raised.find((r) => r['kind'] === kind)?.['n'] ?? 0;
  report('notices of expiry lost or doubled', Math.abs(of('expired') - sent.due), 0);
  report(
    `notices of new addresses lost or doubled, of ${sent.addresses}`,
    Math.abs(of('new_address') - sent.addresses),
    0,
  );
  for (const [channel, { seen }] of /** @type {const} */ ([
    ['email', mail],
    ['webhook', hook],
  ])) {
    const ids = await database.query('SELECT id FROM notice_deliveries WHERE channel = $1', [channel]);
    report(`deliveries by ${channel}`, ids.length);
    report(`  never received`, ids.filter(({ id }) => !seen.has(id)).length, 0);
    report(`  received that were never sent`, seen.size - ids.filter(({ id }) => seen.has(id)).length, 0);
    report(`  received more than once, under the same id`, [...seen.values()].filter((n) => n > 1).length);
  }
  report('places of the audit chain that cannot be proven', verdict.ok ? 0 : 1, 0);
  if (!verdict.ok) console.log(JSON.stringify(verdict));
} finally {
  await Promise.allSettled(starting);
  await Promise.all(ready.map((worker) => worker.stop()));
  redis.disconnect();
  await stack.stop();
  await Promise.all([mail.close(), hook.close()]);
}
