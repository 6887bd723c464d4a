/**
 * A token revoked as exposed that was shown many others (`EXPOSURE_TOKENS`, 100,000 by default), a tenth of
 * them derived from it and the rest by rotating: how long until it is ended itself, until all of it is effective at two
 * gateways, and what other revocations feel meanwhile, ten a second offered.
 */
import { startCluster } from '@latchkey/testing';
import pg from 'pg';
import { issue, many, revokeWhile } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

options('exposure', 'A token exposed that was shown 100,000 others (EXPOSURE_TOKENS), and who waits for that.', {});

const COUNT = Number(process.env.EXPOSURE_TOKENS ?? 100_000);
const PER_SECOND = 10;
const CHUNK = 20_000;

/** In: the token at the beginning, from, to. Every tenth is derived from it; of the others each thousandth rotates on. */
const FILL = `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, created_by_id, ancestors, scopes, created_at)
  SELECT md5(t.id || ' ' || n)::uuid, sha256((t.id || ' ' || n)::bytea), 'pat', 'shown ' || n, 'lk_pat_', t.owner_user_id, 'token',
    CASE WHEN n > 1000 AND n % 3 = 0 THEN md5(t.id || ' ' || n % 1000)::uuid ELSE t.id END,
    CASE WHEN n % 10 = 0 THEN ARRAY[t.id] ELSE '{}' END, '{}', now()
  FROM tokens t, generate_series($2::int, $3::int) n WHERE t.id = $1`;

const cluster = await startCluster({ gateways: 2, throughLink: false });
const client = new pg.Client({ connectionString: cluster.database.url });
try {
  await client.connect();
  const leaked = await issue(cluster, 'leaked');
  for (let from = 1; from <= COUNT; from += CHUNK)
    await client.query(FILL, [leaked.id, from, Math.min(COUNT, from + CHUNK - 1)]);
  await client.query('VACUUM ANALYZE tokens');
  const others = await many(600, (i) => issue(cluster, `other ${i}`));
  const alone = await revokeWhile(
    cluster,
    PER_SECOND,
    () => others.shift(),
    () => others.length <= 500,
  );

  const startMs = performance.now();
  const first = await expose('wait=0');
  const ownMs = performance.now() - startMs;
  let isOver = first.status === 200;
  const meanwhile = revokeWhile(
    cluster,
    PER_SECOND,
    () => others.shift(),
    () => isOver,
  );
  let response = first;
  while (!isOver) {
    response = await expose('wait=5');
    isOver = response.status === 200;
  }
  const allMs = performance.now() - startMs;
  const beside = await meanwhile;
  const { ended } = /** @type {any} */ (response.body);
  const [left] = (
    await client.query('SELECT count(*)::int AS n FROM tokens WHERE revoked_at IS NULL AND name LIKE $1', ['shown %'])
  ).rows;
  if (left.n !== 0 || ended.tokens !== COUNT + 1) throw new Error(`${left.n} live on, ${JSON.stringify(ended)} ended`);

  report(`the token's own end, which was shown ${COUNT}`, ownMs, undefined, ' ms');
  report('all of it effective at two gateways', allMs / 1_000, undefined, ' s');
  report('tokens ended', COUNT / (allMs / 1_000), undefined, ' a second');
  report('another revocation before, p99', percentile(alone, 0.99), undefined, ' ms');
  report(`another revocation meanwhile (${beside.length}), p50`, percentile(beside, 0.5), undefined, ' ms');
  report(`another revocation meanwhile (${beside.length}), p99`, percentile(beside, 0.99), undefined, ' ms');

  function expose(/** @type {string} */ prefer) {
    return cluster.call('POST', `/v1/tokens/${leaked.id}/revoke`, { reason: 'exposed' }, { headers: { prefer } });
  }
} finally {
  await client.end();
  await cluster.close();
}
