/** How long until tokens that fall due at one moment are recorded as expired, and who waits for it: see `--help`. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startPostgres } from '@latchkey/local-stack';
import pg from 'pg';
import { options } from '../lib/options.mjs';
import { summary } from '../lib/statistics.mjs';
import { report } from '../lib.mjs';
import { offeredLoad } from './load.mjs';
import { memoryMb, migrate, sleep, startStack, until } from './stack.mjs';

const choice = options(
  'expiry',
  `Tokens fall due at one moment, scattered over all that are present. Shows the seconds until each is recorded as
expired with its audit event, and until those are sealed; memory; and how long calls of the management API and checks at
a gateway take with and without it, in the same run. PostgreSQL flushes to disk, as npm start has it.`,
  {
    present: ['1000000,10000000', 'tokens present: one measurement for each, in rising order'],
    due: [100_000, 'tokens that fall due in each round'],
    rounds: [3, 'rounds for each'],
    quietSeconds: [20, 'how long calls are measured before and after each round'],
    keep: ['', 'folder that keeps the database and the results for the next run'],
    fill: [false, 'only fill the database'],
  },
);
/** How long making tokens due takes, at most; known better after the first round. */
let leadMs = 40_000;
const sizes = choice.present.split(',').map(Number);
const dir = choice.keep || mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
mkdirSync(dir, { recursive: true });
const postgres = await startPostgres({ dir, connectionsMax: 100 });
const client = new pg.Client({ connectionString: postgres.url });
await client.connect();
const database = {
  url: postgres.url,
  query: async (/** @type {string} */ sql, /** @type {unknown[]} */ values = []) =>
    (await client.query(sql, values)).rows,
  close: async () => undefined,
};
try {
  for (const present of sizes) {
    await fill(present);
    leadMs = 30_000 + present / 100;
    if (!choice.fill) keep(await measure(present));
  }
  if (!choice.fill) reportResults();
} finally {
  await client.end();
  await postgres.stop();
  if (!choice.keep) rmSync(dir, { recursive: true });
}

/** Makes tokens until there are so many. What the rows are found by is made after them, or it would take most of the time. */
async function fill(/** @type {number} */ present) {
  await migrate(database.url);
  // The token-service makes the administrator whose tokens they are.
  const someone = await database.query('SELECT 1 FROM users');
  if (someone.length === 0) await (await startStack({ database })).stop();
  const [{ n }] = await database.query("SELECT count(*)::int AS n FROM tokens WHERE name LIKE 'token %'");
  if (n >= present) return;
  await database.query("SET synchronous_commit = off; SET maintenance_work_mem = '1GB'");
  const indexes = await database.query(
    `SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition, k.conname AS constraint_name,
       pg_get_constraintdef(k.oid) AS constraint_definition
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.conrelid = i.indrelid
     WHERE i.indrelid = 'tokens'::regclass AND NOT i.indisprimary`,
  );
  await database.query('BEGIN');
  for (const { name, constraint_name } of indexes)
    await database.query(
      constraint_name ? `ALTER TABLE tokens DROP CONSTRAINT ${constraint_name}` : `DROP INDEX ${name}`,
    );
  for (let done = n; done < present; done += 500_000)
    await database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, scopes, created_at, expires_at)
       SELECT uuidv7(), sha256(('token ' || n)::bytea), 'pat', 'token ' || n, 'lk_pat_0000',
         (SELECT id FROM users LIMIT 1), 'system', '{}', now() - interval '10 days' + n * interval '1 millisecond',
         now() + interval '90 days' + n * interval '1 second'
       FROM generate_series($1::int, $2::int) n`,
      [done + 1, Math.min(present, done + 500_000)],
    );
  for (const { definition, constraint_name, constraint_definition } of indexes)
    await database.query(
      constraint_name ? `ALTER TABLE tokens ADD CONSTRAINT ${constraint_name} ${constraint_definition}` : definition,
    );
  await database.query('COMMIT');
  await database.query('VACUUM (FREEZE, ANALYZE) tokens');
  console.log(`  ${present} tokens are present`);
}

async function measure(/** @type {number} */ present) {
  const stack = await startStack({ database });
  const gateway = await stack.gateway();
  const worker = await stack.worker();
  try {
    const tokens = [];
    for (let i = 0; i < 20; i++) tokens.push(await stack.call('POST', '/v1/tokens', { name: `used ${i}` }));
    const load = offeredLoad(stack, gateway.url, tokens);
    await sleep(5_000);
    const rounds = [];
    for (let round = 0; round < choice.rounds; round++) rounds.push(await oneRound(stack, load, present));
    await load.stop();
    if (load.failures.length) throw new Error(`${load.failures.length} calls failed: ${load.failures[0]}`);
    const peakMb = { tokenService: memoryMb(stack.tokenService.pid, 'VmHWM'), jobs: memoryMb(worker.pid, 'VmHWM') };
    return { present, due: choice.due, rounds, peakMb };
  } finally {
    await worker.stop();
    await gateway.stop();
    await stack.stop();
  }
}

/**
 * Many tokens get an end that lies ahead; before it and after the sweep calls are measured for a while without it.
 * @param {Awaited<ReturnType<typeof startStack>>} stack @param {ReturnType<typeof offeredLoad>} load @param {number} present
 */
async function oneRound(stack, load, present) {
  const quietMs = choice.quietSeconds * 1_000;
  const askedAt = Date.now();
  const dueAt = new Date(askedAt + leadMs + quietMs);
  const share = Math.min(100, ((choice.due * (choice.rounds + 1)) / present) * 100);
  const { rowCount } = await client.query(
    `WITH chosen AS (
       SELECT id FROM tokens TABLESAMPLE BERNOULLI (${share}) WHERE name LIKE 'token %' AND expires_at > now() LIMIT $1
     ) UPDATE tokens SET expires_at = $2 FROM chosen WHERE tokens.id = chosen.id`,
    [choice.due, dueAt],
  );
  if (rowCount !== choice.due) throw new Error(`${rowCount} tokens were made due, not ${choice.due}`);
  // As tokens are that were written long ago: what this leaves to be noted in their pages, and to be written to disk, is
  // done before anything is measured.
  await database.query('VACUUM (INDEX_CLEANUP off) tokens');
  await database.query('CHECKPOINT');
  if (Date.now() > dueAt.getTime() - quietMs) throw new Error(`making tokens due took ${Date.now() - askedAt} ms`);
  leadMs = Math.round((Date.now() - askedAt) * 1.5) + 3_000;
  const expired = "SELECT count(*) FROM audit_events WHERE action = 'token.expired'";
  const before = await stack.count(expired);

  await sleep(dueAt.getTime() - quietMs - Date.now());
  const quietFrom = performance.now();
  await sleep(dueAt.getTime() - Date.now());
  const started = performance.now();
  const usedBefore = processorSeconds(stack.tokenService.pid);
  await until(
    async () =>
      (
        await database.query(
          'SELECT 1 FROM tokens WHERE (expires_at, id) > (SELECT at, token_id FROM expiry_mark) AND expires_at <= now() AND revoked_at IS NULL LIMIT 1',
        )
      ).length === 0,
    200,
  );
  const ended = performance.now();
  const used = processorSeconds(stack.tokenService.pid) - usedBefore;
  const unsealed = `SELECT count(*) FROM audit_events e
    WHERE e.xid >= (SELECT h.xid FROM audit_links l JOIN audit_events h ON h.id = l.event_id AND h.at = l.event_at ORDER BY l.seq DESC LIMIT 1)
      AND e.action = 'token.expired' AND (SELECT true FROM audit_links l WHERE l.event_id = e.id) IS NULL`;
  await until(async () => (await stack.count(unsealed)) === 0, 500);
  const allSealed = performance.now();
  await sleep(2_000);
  const afterFrom = performance.now();
  const usedAfter = processorSeconds(stack.tokenService.pid);
  await sleep(quietMs);
  // What the same stretch costs without a sweep; the rest is the sweep's, however busy the machine is with other things.
  const idle = (processorSeconds(stack.tokenService.pid) - usedAfter) / quietMs;
  const result = {
    seconds: (ended - started) / 1_000,
    sealedSeconds: (allSealed - started) / 1_000,
    processorSeconds: used - idle * (ended - started),
    exactlyOneEventEach: (await stack.count(expired)) - before === choice.due,
    without: [load.between(quietFrom, started), load.between(afterFrom, performance.now())],
    during: load.between(started, allSealed),
  };
  console.log(`  ${JSON.stringify(result)}`);
  return result;
}

/** Used so far by PostgreSQL, all its processes, and the token-service; ended ones count with their parent (Linux). */
function processorSeconds(/** @type {number} */ tokenService) {
  let ticks = 0;
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    let stat;
    try {
      stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    } catch {
      continue; // ended since it was listed
    }
    // After the name, which can contain anything: state, parent, …; user and system time, and those of ended children.
    const fields = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    const [own, parent] = [Number(pid), fields[1]];
    if (own === postgres.pid || own === tokenService || parent === postgres.pid)
      for (const place of [11, 12, ...(own === postgres.pid ? [13, 14] : [])]) ticks += fields[place] ?? 0;
  }
  return ticks / 100;
}

/** @typedef {Awaited<ReturnType<typeof measure>>} Measurement */

/** @returns {Measurement[]} */
function kept() {
  const file = path.join(dir, 'results.json');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : [];
}

function keep(/** @type {Measurement} */ result) {
  const others = kept().filter(({ present }) => present !== result.present);
  writeFileSync(path.join(dir, 'results.json'), JSON.stringify([...others, result]));
}

function reportResults() {
  const results = kept().sort((a, b) => a.present - b.present);
  for (const { present, rounds, peakMb } of results) {
    const million = `${present / 1e6} M present`;
    const of = (/** @type {(round: Measurement['rounds'][number]) => number} */ value) => summary(rounds.map(value));
    const seconds = of((r) => r.seconds);
    report(`${million}: recorded, median (${spread(seconds)})`, seconds.median, undefined, ' s');
    report(`${million}: processor seconds of PostgreSQL and the token-service`, of((r) => r.processorSeconds).median);
    const sealed = of((r) => r.sealedSeconds);
    report(`${million}: recorded and sealed, median (${spread(sealed)})`, sealed.median, undefined, ' s');
    report(
      `${million}: rounds with other than one event for each`,
      rounds.filter((r) => !r.exactlyOneEventEach).length,
      0,
    );
    report(`${million}: peak memory, token-service`, peakMb.tokenService, undefined, ' MB');
    report(`${million}: peak memory, worker`, peakMb.jobs, undefined, ' MB');
    for (const kind of /** @type {const} */ (['api', 'check', 'first check'])) {
      const without = summary(rounds.flatMap((r) => r.without.map((span) => span[kind].p99)));
      const during = of((r) => r.during[kind].p99);
      report(`${million}: ${kind}, p99 without (${spread(without)})`, without.median, undefined, ' ms');
      report(`${million}: ${kind}, p99 during (${spread(during)})`, during.median, undefined, ' ms');
      report(`${million}: ${kind}, p99 during / without`, during.median / without.median, 2, '×');
    }
  }
  const [first, last] = [results[0], results.at(-1)];
  if (!first || !last || first === last) return;
  const seconds = (/** @type {Measurement} */ { rounds }) => summary(rounds.map((r) => r.seconds)).median;
  const processor = (/** @type {Measurement} */ { rounds }) => summary(rounds.map((r) => r.processorSeconds)).median;
  report('the same by processor seconds, independent of the load', processor(last) / processor(first), 1.3, '×');
  report(
    `seconds with ${last.present / 1e6} M / with ${first.present / 1e6} M`,
    seconds(last) / seconds(first),
    1.3,
    '×',
  );
}

/** @param {{ low: number, high: number }} of */
function spread({ low, high }) {
  return `${low.toFixed(1)} to ${high.toFixed(1)}`;
}
