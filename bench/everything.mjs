/**
 * Everything revoked among many tokens: how long until that returns, effective at two gateways, how long until every
 * row is marked, and how long single revocations take meanwhile, ten a second offered.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { startCluster } from '@latchkey/testing';
import pg from 'pg';
import { issue, revokeWhile } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

const { tokens: COUNT, limit: LIMIT_S } = options('everything', 'Everything is revoked at once, among many tokens.', {
  tokens: [1_000_000, 'how many there are'],
  limit: [1_800, 'seconds until marking is given up'],
});
const PER_SECOND = 10;
const CHUNK = 100_000;

/** Ids in the order of time, as a UUIDv7 is. In: a token, from, to. */
const FILL = `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, created_by_id, scopes, created_at)
  SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, sha256((t.id || ' ' || n)::bytea), 'pat', 'one of many ' || n, 'lk_pat_', t.owner_user_id,
    'user', t.owner_user_id, '{}', now() - interval '1 year' + n * interval '1 s'
  FROM tokens t, generate_series($2::int, $3::int) n WHERE t.id = $1`;

const cluster = await startCluster({ gateways: 2, throughLink: false });
const client = new pg.Client({ connectionString: cluster.database.url });
try {
  await client.connect();
  const first = await issue(cluster, 'first');
  for (let from = 1; from <= COUNT; from += CHUNK)
    await client.query(FILL, [first.id, from, Math.min(COUNT, from + CHUNK - 1)]);
  await client.query('VACUUM ANALYZE tokens');
  const another = () => issue(cluster, 'another');
  let asked = 0;
  const alone = await revokeWhile(cluster, PER_SECOND, another, () => ++asked > 100);

  const startMs = performance.now();
  const { status, body } = await cluster.call('POST', '/v1/tokens/revoke-all', {
    reason: 'policy',
    confirm: 'revoke everything',
  });
  const answeredMs = performance.now() - startMs;
  if (status !== 200) throw new Error(`returned ${status} ${JSON.stringify(body)}`);
  let marked = false;
  const meanwhile = revokeWhile(cluster, PER_SECOND, another, () => marked);
  while (!marked) {
    if (performance.now() - startMs > LIMIT_S * 1_000) throw new Error(`not all rows are marked after ${LIMIT_S} s`);
    await sleep(200);
    const { rows } = await client.query('SELECT bool_and(marked_at IS NOT NULL) AS marked FROM revocations_of_all');
    marked = rows[0].marked;
  }
  const markedMs = performance.now() - startMs;
  const beside = await meanwhile;
  const { rows } = await client.query('SELECT count(*)::int AS n FROM tokens WHERE revoked_at IS NULL');
  if (rows[0].n !== 0) throw new Error(`${rows[0].n} rows are not marked`);

  report(`everything among ${COUNT} tokens, effective at two gateways`, answeredMs, undefined, ' ms');
  report('every row marked', markedMs / 1_000, undefined, ' s');
  report('another revocation before, p50', percentile(alone, 0.5), undefined, ' ms');
  report('another revocation before, p99', percentile(alone, 0.99), undefined, ' ms');
  report(`another revocation meanwhile (${beside.length}), p50`, percentile(beside, 0.5), undefined, ' ms');
  report(`another revocation meanwhile (${beside.length}), p99`, percentile(beside, 0.99), undefined, ' ms');
} finally {
  await client.end();
  await cluster.close();
}
