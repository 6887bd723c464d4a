import { describe, expect, test } from '@jest/globals';
import { kindProblems, listProblems, migrationProblems, nameProblems, orderProblems } from '../migrations.mjs';

const text = (name: string) => `export class ${name} implements MigrationInterface {}`;

test('the migrations of this repository are sorted, listed, and spare the services of before', () => {
  expect(migrationProblems()).toEqual([]);
});

test('a new migration has its time in the names of its file and class', () => {
  expect(nameProblems('1796000000000-what.ts', text('What1796000000000'))).toEqual([]);
  expect(nameProblems('0470-receipts.ts', text('Receipts0000000000470'))).toEqual([]);
  expect(nameProblems('0471-what.ts', text('What0000000000471'))[0]).toMatch(/name it by the time/);
  expect(nameProblems('1796000000000-what.ts', text('What1796000000001'))[0]).toMatch(/must be named …1796000000000/);
});

test('a migration that was added after another but is named before it is a problem: databases have run the other', () => {
  const [older, newer] = ['1796000000000-a.ts', '1797000000000-b.ts'];
  expect(orderProblems(['0300-c.ts', '0100-d.ts', older, newer])).toEqual([]);
  expect(orderProblems([newer, older])[0]).toMatch(/1796000000000-a.ts: it was added after 1797000000000-b.ts/);
});

test('the services know every migration, in the order in which they run', () => {
  const list = (...names: string[]) => names.map((name) => `  '${name}',\n`).join('');
  const names = ['B1796000000000', 'A0000000000470', 'C1797000000000'];
  expect(listProblems(names, list('A0000000000470', 'B1796000000000', 'C1797000000000'))).toEqual([]);
  expect(listProblems(names, list('A0000000000470', 'B1796000000000'))[0]).toContain(
    'C1797000000000 is not at its place',
  );
  expect(listProblems(names.slice(0, 2), list('A0000000000470', 'B1796000000000', 'C1797000000000'))[0]).toContain(
    'C1797',
  );
  expect(listProblems(names, list('B1796000000000', 'A0000000000470', 'C1797000000000'))[0]).toContain(
    'A0000000000470',
  );
});

describe('a migration', () => {
  const problems = (kind: string, sql: string, more = '') =>
    kindProblems('1799000000000-what.ts', `  readonly kind = '${kind}';\n${more}const sql = \`${sql}\`;`);

  test('says whether services of before can go on', () => {
    expect(kindProblems('1799000000000-what.ts', '')[0]).toMatch(/say readonly kind/);
    expect(kindProblems('1796024900000-peppers.ts', '')).toEqual([]);
    expect(problems('expand', 'ALTER TABLE tokens ADD COLUMN note text; DROP INDEX CONCURRENTLY IF EXISTS a')).toEqual(
      [],
    );
  });

  test.each([
    'DROP TABLE x',
    'ALTER TABLE x DROP COLUMN y',
    'ALTER TABLE x RENAME y TO z',
    'ALTER TABLE x ALTER COLUMN y TYPE bigint',
    'ALTER TABLE x ALTER COLUMN y SET NOT NULL',
    'REVOKE SELECT ON x FROM latchkey_jobs',
  ])('that removes something is said to contract: %s', (sql) => {
    expect(problems('expand', sql)[0]).toMatch(/it is said to expand/);
    expect(problems('contract', sql)[0]).toMatch(/schema_min_version/);
    expect(problems('contract', `${sql}; CREATE OR REPLACE FUNCTION schema_min_version() …`)).toEqual([]);
  });

  test('makes indexes of tables with rows concurrently, outside a transaction', () => {
    expect(problems('expand', 'CREATE TABLE x (a int); CREATE INDEX ON x (a)')).toEqual([]);
    expect(problems('expand', 'CREATE INDEX a ON tokens (b)')[0]).toMatch(/index of tokens CONCURRENTLY/);
    const concurrently = 'CREATE UNIQUE INDEX CONCURRENTLY a ON tokens (b)';
    expect(problems('expand', concurrently)[0]).toMatch(/needs readonly transaction = false/);
    expect(problems('expand', concurrently, '  readonly transaction = false;\n')).toEqual([]);
  });
});
