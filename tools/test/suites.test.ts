import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { againReport, countReports, failedFiles, removeReports, suites, total } from '../lib/suites.mjs';

const startedAt = new Date('2030-01-01T00:00:00Z');
let dir: string;

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-suites-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const workspace = (name: string, scripts: Record<string, string> = { test: 'jest' }) => ({
  name: `@latchkey/${name}`,
  dir: `packages/${name}`,
  manifest: { scripts },
});

interface Report {
  passed: number;
  failed: number;
  skipped?: number;
  finishedAt?: string;
  failedFiles?: { file: string; passed: number; failed: number; tests: string[] }[];
}

function report(name: string, counts: Report, as = 'jest.json'): void {
  const file = path.join(dir, 'packages', name, '.reports', as);
  mkdirSync(path.dirname(file), { recursive: true });
  const defaults = { skipped: 0, seconds: 7, finishedAt: '2030-01-01T00:00:07.000Z', failedFiles: [] };
  writeFileSync(file, JSON.stringify({ ...defaults, ...counts }));
}

/** A failed test file with one passed test. */
const failedFile = (file: string, ...tests: string[]) => ({ file, passed: 1, failed: tests.length, tests });

test('counts are summed over the suites', () => {
  report('one', { passed: 3, failed: 1 });
  report('two', { passed: 4, failed: 0 });
  expect(total(countReports([workspace('one'), workspace('two')], 1, startedAt, dir))).toBe('7 passed, 1 failed');
});

test('a suite without a report counts as failed', () => {
  report('one', { passed: 3, failed: 0 });
  const counts = countReports([workspace('one'), workspace('two')], 1, startedAt, dir);
  expect(counts[1]).toMatchObject({ dir: 'packages/two', failed: 1, note: 'has a test script and no tests' });
});

test('a suite that ran no test counts as failed', () => {
  report('one', { passed: 0, failed: 0 });
  expect(total(countReports([workspace('one')], 0, startedAt, dir))).toBe('0 passed, 1 failed');
});

test('a run that failed without a failed test counts as failed', () => {
  report('one', { passed: 3, failed: 0 });
  expect(total(countReports([workspace('one')], 137, startedAt, dir))).toBe('3 passed, 1 failed');
});

test('the report of an earlier run does not count', () => {
  report('one', { passed: 3, failed: 0 });
  removeReports([workspace('one')], dir);
  expect(total(countReports([workspace('one')], 0, startedAt, dir))).toBe('0 passed, 1 failed');
});

test('a report from the cache counts, and its note names its time', () => {
  report('one', { passed: 3, failed: 0 });
  report('two', { passed: 4, failed: 0, finishedAt: '2029-12-31T00:00:00.000Z' });
  const counts = countReports([workspace('one'), workspace('two')], 0, startedAt, dir);
  expect(counts.map(({ note }) => note)).toEqual(['7 s', 'nothing changed since 2029-12-31T00:00:00.000Z']);
  expect(total(counts)).toBe('7 passed, 0 failed');
});

test('a suite is found by its folder, its name or the last part of either', () => {
  const all = [workspace('one'), workspace('two'), workspace('docs', {})];
  for (const word of ['packages/two', 'packages/two/', '@latchkey/two', 'two']) {
    expect(suites([word], all).map(({ name }) => name)).toEqual(['@latchkey/two']);
  }
  expect(suites([], all)).toHaveLength(2);
  expect(() => suites(['three'], all)).toThrow('no suite is called three; there are packages/one, packages/two');
});

test('what passed only when it was run alone counts as passed, and is named', () => {
  report('one', { passed: 8, failed: 2, failedFiles: [failedFile('test/a.test.ts', 'waits', 'breaks')] });
  report('one', { passed: 2, failed: 1, failedFiles: [failedFile('test/a.test.ts', 'breaks')] }, againReport);
  const [count] = countReports([workspace('one')], 1, startedAt, dir);
  expect(count).toMatchObject({ passed: 9, failed: 1 });
  expect(count!.note).toBe('7 s; UNSTEADY, passed only alone: test/a.test.ts: waits');
});

test('up to five failed files are run again, of all suites together', () => {
  const chosen = [workspace('one'), workspace('two')];
  report('one', { passed: 8, failed: 1, failedFiles: [failedFile('test/a.test.ts', 'x')] });
  report('two', { passed: 8, failed: 0 });
  expect(failedFiles(chosen, dir)).toEqual([{ suite: chosen[0], files: ['test/a.test.ts'] }]);
  const five = ['b', 'c', 'd', 'e', 'f'].map((name) => failedFile(`test/${name}.test.ts`, 'x'));
  report('two', { passed: 8, failed: 5, failedFiles: five });
  expect(failedFiles(chosen, dir)).toEqual([]);
});

test.each([
  ['wrote no report', undefined],
  ['ran no test', { passed: 0, failed: 0 }],
])('nothing is run again when a suite %s', (_, counts) => {
  report('one', { passed: 8, failed: 1, failedFiles: [failedFile('test/a.test.ts', 'x')] });
  if (counts) report('two', counts);
  expect(failedFiles([workspace('one'), workspace('two')], dir)).toEqual([]);
});
