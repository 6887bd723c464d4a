import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';

const root = path.join(import.meta.dirname, '../..');
let dir: string;

beforeEach(() => {
  dir = realpathSync(mkdtempSync(path.join(tmpdir(), 'latchkey-reporter-')));
  mkdirSync(path.join(dir, 'test'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Runs jest with the reporter in a folder with one test file; turbo caches what exits with 0. */
function jest(source: string, ...args: string[]) {
  writeFileSync(path.join(dir, 'test/one.test.js'), source);
  const config = {
    rootDir: dir,
    testMatch: ['<rootDir>/test/*.test.js'],
    reporters: [path.join(root, 'tools/jest-json-reporter.mjs')],
  };
  const program = path.join(root, 'node_modules/jest/bin/jest.js');
  const { status } = spawnSync(process.execPath, [program, '--config', JSON.stringify(config), ...args], {
    cwd: dir,
    encoding: 'utf8',
  });
  return { cached: status === 0, reported: existsSync(path.join(dir, '.reports/jest.json')) };
}

test('a run whose tests passed is cached', () => {
  expect(jest("test('one', () => undefined);")).toEqual({ cached: true, reported: true });
});

test.each([
  ['a failed test', "test('one', () => undefined); test('two', () => { throw new Error(); });"],
  ['a file that cannot be read', "test('one', () => undefined); )"],
  ['every test skipped', "test('one', () => undefined);", '-t', 'two'],
  ['no test at all', "test('one', () => undefined);", '--passWithNoTests', 'two.test.js'],
])('a run with %s is not cached', (_, source, ...args) => {
  expect(jest(source, ...args)).toEqual({ cached: false, reported: true });
});

test('a run that a test ends before the report is not cached', () => {
  expect(jest("test('one', () => process.exit(0));")).toEqual({ cached: false, reported: false });
});
