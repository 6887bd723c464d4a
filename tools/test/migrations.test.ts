import { expect, test } from '@jest/globals';
import { migrationProblems, nameProblems, orderProblems } from '../migrations.mjs';

const text = (name: string) => `export class ${name} implements MigrationInterface {}`;

test('the migrations of this repository are sorted in the order in which they were added', () => {
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
