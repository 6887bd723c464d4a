import type { TestDatabase } from '@latchkey/testing';
import { SELECT_EXPIRY_DUE } from '../src/tokens/expiry.service.js';
import { SELECT_FACTS } from '../src/tokens/facts.service.js';
import { Order } from '../src/tokens/order.js';
import { SELECT_DESCENDANTS, SELECT_OVERLAP_DUE } from '../src/tokens/revocations.service.js';
import { migratedDatabase } from './database.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await migratedDatabase();
});
afterAll(() => database.close());

/** With whole-table reads forbidden, a plan has one only where no index fits the statement. */
test.each([
  [
    'what a check must know of a token',
    'tokens_hash_once',
    `${SELECT_FACTS} WHERE t.hash = ANY ($1)`,
    "ARRAY['\\x00'::bytea]",
  ],
  [
    'what was made with a token',
    'tokens_by_ancestor',
    SELECT_DESCENDANTS,
    "ARRAY['01890000-0000-7000-8000-000000000000'::uuid]",
  ],
  [
    'what has expired',
    'tokens_by_own_end',
    SELECT_EXPIRY_DUE.replace('$2', "'epoch'").replace('$3', "'01890000-0000-7000-8000-000000000000'"),
    '100',
  ],
  ['which overlaps have ended', 'tokens_overlap_due', SELECT_OVERLAP_DUE, '100'],
])('%s is found by index, whatever the number of tokens', async (_, index, sql, value) => {
  await database.query(`ALTER DATABASE ${database.name} SET enable_seqscan = off`);
  // For the values at hand, and as a prepared statement is planned, for any.
  for (const statement of [`EXPLAIN ${sql.replace('$1', value)}`, `EXPLAIN (GENERIC_PLAN) ${sql}`]) {
    const plan = await database.query(statement);
    const text = plan.map((row) => row['QUERY PLAN'] as string).join('\n');
    expect(text).toContain(index);
    expect(text).not.toMatch(/Seq Scan on (tokens|users|projects|members)/);
  }
});

const ID = '01890000-0000-7000-8000-000000000000';

test.each([
  ['created', 'tokens_by_time', 'tokens_by_owner'],
  ['name', 'tokens_by_lower_name', 'tokens_by_owner_name'],
  ['-name', 'tokens_by_lower_name', 'tokens_by_owner_name'],
  ['expires', 'tokens_by_end', 'tokens_by_owner_end'],
  ['-expires', 'tokens_by_end', 'tokens_by_owner_end'],
] as const)('a page of tokens by %s is read from an index in its order', async (sort, ofAll, ofOne) => {
  for (const setting of ['seqscan', 'sort', 'bitmapscan']) {
    await database.query(`ALTER DATABASE ${database.name} SET enable_${setting} = off`);
  }
  const order = new Order(sort);
  const cursor = order.at({ id: ID, sort_key: sort.endsWith('name') ? 'm' : new Date(1_000) });
  const after = order.after(cursor, (value) => `'${value instanceof Date ? value.toISOString() : value}'`);
  for (const [index, owner] of [
    [ofAll, ''],
    [ofOne, `t.owner_id = '${ID}' AND`],
  ]) {
    const plan = await database.query(
      `EXPLAIN SELECT t.id, ${order.column} FROM tokens t WHERE ${owner} ${after} ${order.rows} LIMIT 51`,
    );
    const text = plan.map((row) => row['QUERY PLAN'] as string).join('\n');
    expect(text).toContain(`using ${index} `);
    expect(text).not.toMatch(/Sort|Seq Scan/);
  }
});
