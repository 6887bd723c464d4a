import { hash } from 'node:crypto';
import type { ListTokensQuery } from '@latchkey/contracts';
import type { TestDatabase } from '@latchkey/testing';
import { Client } from 'pg';
import { LIST_SETTINGS } from '../src/database/database.service.js';
import { firstIdAt, PRUNE_RECEIPTS } from '../src/invalidation/receipts.queries.js';
import { SELECT_CHANGES, SELECT_REVOCATIONS } from '../src/invalidation/receipts.service.js';
import { SELECT_EXPIRY_DUE } from '../src/tokens/expiry.service.js';
import { selectDescendants, selectShown } from '../src/tokens/exposure.queries.js';
import { selectFamily } from '../src/tokens/issue.rules.js';
import { selectPage } from '../src/tokens/listing.js';
import { Order } from '../src/tokens/order.js';
import { SELECT_DESCENDANTS, SELECT_OVERLAP_DUE } from '../src/tokens/token.queries.js';
import { SELECT_SNAPSHOT, snapshotByHash } from '../src/verification/snapshot.service.js';
import { migratedDatabase } from './database.js';

const TOKENS = 30_000;
const LIMIT = 25;
const person = (n: number) => `01000000-0000-7000-8000-${String(n).padStart(12, '0')}`;
const tokenId = (n: number) => `02000000-0000-7000-8000-${String(n).padStart(12, '0')}`;
/** Owns half of all tokens; the other two hundred people share the rest. */
const BIG = person(1);
const SMALL = Array.from({ length: 20 }, (_, i) => person(i + 2));

let database: TestDatabase;
beforeAll(async () => {
  database = await migratedDatabase();
  await database.query(
    `INSERT INTO users (id, email, name, role, created_at)
     SELECT ('01000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, n || '@example.org', 'Person ' || n, 'member', now()
     FROM generate_series(1, 200) n`,
  );
  // Of ten, three are revoked, three expired, of which a few have just; of a thousand, one is disabled and one a child.
  await database.query(
    `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, ancestors, scopes, created_at, expires_at,
       disabled_at, revoked_at, revocation_reason)
     SELECT ('02000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, sha256(n::text::bytea), 'pat',
       (ARRAY['deploy', 'export', 'sync'])[1 + n % 3] || ' to ' || (ARRAY['Köln', 'staging', 'n8', '日本語'])[1 + n % 4] || ' #' || n,
       'lk_pat_' || substr(md5(n::text), 1, 4),
       ('01000000-0000-7000-8000-' || lpad((CASE WHEN n % 2 = 0 THEN 1 ELSE 2 + n / 2 % 199 END)::text, 12, '0'))::uuid, 'user',
       CASE WHEN n % 1000 = 7 THEN ARRAY[('02000000-0000-7000-8000-' || lpad((n - 1)::text, 12, '0'))::uuid] ELSE '{}' END, '{}',
       now() - interval '400 days' + n * interval '1 minute',
       CASE WHEN n % 10 BETWEEN 3 AND 5 THEN now() - interval '1 hour' WHEN n % 3 = 0 THEN now() + interval '1 day' END,
       CASE WHEN n % 1000 = 8 THEN now() END,
       CASE WHEN n % 10 < 3 THEN now() END, CASE WHEN n % 10 < 3 THEN 'policy' END
     FROM generate_series(1, ${TOKENS}) n`,
  );
  await database.query(
    `INSERT INTO audit_events (id, at, actor_type, actor_name, action, subject_type, subject_id, xid)
     SELECT ('01890000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, now() - n * interval '1 s', 'system', 'Latchkey',
       'token.expired', 'token', n::text, (1000000 + n / 2)::text::xid8
     FROM generate_series(1, 50000) n`,
  );
  await database.query(
    `INSERT INTO audit_events (id, at, actor_type, actor_name, action, token_id, subject_type, subject_id)
     SELECT ('01890001-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, now() - n * interval '1 s', 'system', 'Latchkey',
       'token.revoked', ('02000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'token', n::text
     FROM generate_series(1, 20000) n`,
  );
  await database.query(
    `INSERT INTO receipts (id, body) SELECT ('01890000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '{}'
     FROM generate_series(1, 20000) n`,
  );
  await database.query('VACUUM ANALYZE');
}, 120_000);
afterAll(() => database.close());

interface PlanNode {
  'Node Type': string;
  'Index Name'?: string;
  'Relation Name'?: string;
  'Actual Rows': number;
  'Actual Loops': number;
  'Rows Removed by Filter'?: number;
  'Rows Removed by Index Recheck'?: number;
  Plans?: PlanNode[];
}

const every = (node: PlanNode): PlanNode[] => [node, ...(node.Plans ?? []).flatMap(every)];

/** Runs a statement and returns what its plan read: rows of tables, and by which indexes. */
async function run(sql: string): Promise<{ rowsRead: number; indexes: string[]; wholeTables: string[] }> {
  const [row] = await database.query(`EXPLAIN (ANALYZE, FORMAT JSON) ${sql}`);
  const nodes = every((row!['QUERY PLAN'] as { Plan: PlanNode }[])[0]!.Plan).filter((node) => node['Actual Loops'] > 0);
  const ofTables = nodes.filter((node) => node['Relation Name']);
  const rowsOf = (node: PlanNode) =>
    node['Actual Loops'] *
    (node['Actual Rows'] + (node['Rows Removed by Filter'] ?? 0) + (node['Rows Removed by Index Recheck'] ?? 0));
  return {
    rowsRead: ofTables.reduce((sum, node) => sum + rowsOf(node), 0),
    indexes: nodes.flatMap((node) => node['Index Name'] ?? []),
    wholeTables: ofTables.filter((n) => n['Node Type'] === 'Seq Scan').map((n) => n['Relation Name']!),
  };
}

test.each([
  [
    'the token snapshot of a check',
    'tokens_hash_once',
    `${SELECT_SNAPSHOT} WHERE t.hash IN ($1, sha256('none'))`,
    "sha256('77')",
  ],
  ['the descendants of a token', 'tokens_by_ancestor', SELECT_DESCENDANTS, `ARRAY['${tokenId(1006)}'::uuid]`],
  [
    'tokens that have expired',
    'tokens_by_own_end',
    SELECT_EXPIRY_DUE.replace('$2', "'epoch'").replace('$3', "'01890000-0000-7000-8000-000000000000'"),
    '100',
  ],
  ['overlaps that have ended', 'tokens_overlap_due', SELECT_OVERLAP_DUE, '100'],
  [
    'what a token was shown',
    'tokens_by_maker',
    selectShown([])[0].replaceAll('$2', '1000'),
    `'[{"place":0,"maker":"${tokenId(1006)}"}]'`,
  ],
  [
    'what is left of the descendants of exposed tokens',
    'tokens_by_ancestor',
    selectDescendants([])[0].replaceAll('$2', '1000'),
    `ARRAY['${tokenId(1006)}'::uuid]`,
  ],
  [
    "the growth of a token's family",
    'tokens_by_family',
    selectFamily('')[0].replaceAll('$2', "'epoch'").replaceAll('$3', '1000'),
    `'${tokenId(1006)}'`,
  ],
])('%s: found by index, whatever the number of tokens', async (_, index, sql, value) => {
  const plan = await run(sql.replace('$1', value));
  expect(plan.indexes).toContain(index);
  expect(plan.wholeTables.filter((table) => table === 'tokens')).toEqual([]);
  expect(plan.rowsRead).toBeLessThanOrEqual(310);
  // As a prepared statement is planned, for any value.
  const generic = await database.query(`EXPLAIN (GENERIC_PLAN) ${sql}`);
  const text = generic.map((row) => row['QUERY PLAN'] as string).join('\n');
  expect(text).toContain(index);
  expect(text).not.toContain('Seq Scan on tokens');
});

test('the audit events of one change are found by index, however many others there are', async () => {
  const plan = await run(SELECT_CHANGES.replace('$1', "'{1001000}'").replaceAll('$2', 'now()'));
  expect(plan.indexes.filter((name) => name.includes('xid'))).not.toEqual([]);
  expect(plan.rowsRead).toBeLessThanOrEqual(10);
});

test('the revocations of tokens are found by index, however many events there are', async () => {
  const plan = await run(SELECT_REVOCATIONS.replace('$1', `'{${tokenId(3)}}'`));
  expect(plan.indexes.filter((name) => name.includes('token_id'))).not.toEqual([]);
  expect(plan.rowsRead).toBeLessThanOrEqual(10);
});

test('receipts past their retention are found by index, at most as many as a step removes', async () => {
  const plan = await run(PRUNE_RECEIPTS.replace('$1', '10').replace('$2', `'${firstIdAt(new Date())}'`));
  expect(plan.indexes).toContain('receipts_pkey');
  expect(plan.rowsRead).toBeLessThanOrEqual(50);
});

/** As in the service: with the settings of the connections for lists. */
async function page(query: Partial<ListTokensQuery>, owners: 'all' | readonly string[]) {
  for (const [name, value] of Object.entries(LIST_SETTINGS))
    await database.query(`ALTER DATABASE ${database.name} SET ${name} = ${value}`);
  const quoted = (value: unknown) => {
    if (Array.isArray(value)) return `'{${value.join(',')}}'`;
    return typeof value === 'number'
      ? String(value)
      : `'${String(value instanceof Date ? value.toISOString() : value).replaceAll("'", "''")}'`;
  };
  return run(selectPage({ limit: LIMIT, ...query }, owners, new Order(query.sort ?? '-created'), quoted));
}

const deep = (sort: ListTokensQuery['sort'], key: string | Date) =>
  new Order(sort).at({ id: tokenId(TOKENS / 2), sort_key: key });
const LONG_AGO = new Date(Date.now() - 390 * 86_400_000);
const OWNERS: [string, 'all' | string[]][] = [
  ['all', 'all'],
  ['an owner of half of them', [BIG]],
  ['an owner of few', [person(5)]],
  ['many owners, one of them large', [BIG, ...SMALL]],
];

describe.each(OWNERS)('tokens of %s', (_, owners) => {
  const places = owners === 'all' ? 1 : owners.length;

  test.each([
    ['the first page', {}],
    ['a deep page', { cursor: deep('-created', LONG_AGO) }],
    ['the first page by name', { sort: 'name' as const }],
    ['a deep page by name', { sort: '-name' as const, cursor: deep('-name', 'export') }],
    ['the first page by expiry', { sort: '-expires' as const }],
    ['a deep page by expiry', { sort: 'expires' as const, cursor: deep('expires', new Date()) }],
    ['the first page of revoked tokens', { status: 'revoked' as const }],
    ['a deep page of revoked tokens', { status: 'revoked' as const, cursor: deep('-created', LONG_AGO) }],
    ['the first page of disabled tokens', { status: 'disabled' as const }],
  ])('%s reads at most a few rows per token shown', async (_, query) => {
    const plan = await page(query, owners);
    expect(plan.wholeTables).toEqual([]);
    expect(plan.rowsRead).toBeLessThanOrEqual(places * (LIMIT + 1) * 4 + 100);
  });

  // Expiry depends on the clock, so no index has it: the next thousand tokens are read.
  test.each([
    ['active', {}],
    ['active', { cursor: deep('-created', LONG_AGO) }],
    ['expired', {}],
    ['expired', { cursor: deep('-created', LONG_AGO) }],
  ] as const)('a page of %s tokens reads the next thousand at most (%j)', async (status, query) => {
    const plan = await page({ status, ...query }, owners);
    expect(plan.wholeTables).toEqual([]);
    expect(plan.rowsRead).toBeLessThanOrEqual(4_000);
  });

  test.each([
    ['a frequent word', 'deploy'],
    ['the number of one token', '#12347'],
    ['a word that no token has', 'zebra'],
    ['two letters', 'n8'],
    ['two letters that no token has', 'zq'],
    ['a sign', '%'],
    ['another alphabet', '日本'],
    ['a prefix', 'lk_pat_ab12'],
  ])('a search for %s reads a bounded number of tokens', async (_, q) => {
    // By name, frequent matches can all lie far from the start of the list: they are collected and sorted.
    const isFrequent = ['deploy', 'n8', '日本'].includes(q);
    for (const query of [
      { q },
      { q, status: 'active' as const },
      ...(isFrequent ? [] : [{ q, sort: 'name' as const }]),
    ]) {
      const plan = await page(query, owners);
      expect(plan.wholeTables).toEqual([]);
      expect(plan.rowsRead).toBeLessThanOrEqual(4_000);
    }
  });
});

it('a look-up is planned once per connection, not each time', async () => {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  try {
    const sha256 = (n: number) => hash('sha256', String(n), 'buffer');
    for (let n = 0; n < 10; n++)
      await client.query({ name: 'look-up', text: snapshotByHash(2), values: [[], sha256(n), sha256(-n)] });
    const { rows } = await client.query('SELECT generic_plans::int AS generic FROM pg_prepared_statements');
    expect(rows[0].generic).toBeGreaterThan(0);
  } finally {
    await client.end();
  }
});
