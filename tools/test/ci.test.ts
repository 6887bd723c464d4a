import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';

const script = path.join(import.meta.dirname, '../../.ci/run');
let dir: string;

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-ci-'));
  mkdirSync(path.join(dir, '.ci'));
  cpSync(script, path.join(dir, '.ci/run'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Runs `.ci/run` with a fake `npm` that exits as specified; returns its exit code and its last line. */
function ci({ check = 0, tests = 0, prints = '5 passed, 0 failed' }) {
  mkdirSync(path.join(dir, 'bin'));
  const npm = path.join(dir, 'bin/npm');
  writeFileSync(npm, `#!/bin/sh\ncase "$*" in *check*) exit ${check};; esac\necho "${prints}"\nexit ${tests}\n`);
  chmodSync(npm, 0o755);
  const { status, stdout } = spawnSync(path.join(dir, '.ci/run'), {
    env: { ...process.env, PATH: `${path.dirname(npm)}:${process.env.PATH}` },
    encoding: 'utf8',
  });
  return { status, lastLine: stdout.trimEnd().split('\n').at(-1) };
}

test('the run exits with 0 when the check and every test passed', () => {
  expect(ci({})).toEqual({ status: 0, lastLine: '5 passed, 0 failed' });
});

test('a failed check counts as one failure', () => {
  expect(ci({ check: 1 })).toEqual({ status: 1, lastLine: '5 passed, 1 failed' });
});

test('a failed test fails the run', () => {
  expect(ci({ tests: 1, prints: '4 passed, 2 failed' })).toEqual({ status: 1, lastLine: '4 passed, 2 failed' });
});

test('a test command that fails without a failed test counts as one failure', () => {
  expect(ci({ tests: 1 })).toEqual({ status: 1, lastLine: '5 passed, 1 failed' });
});

test('a test command that prints no counts fails the run', () => {
  expect(ci({ prints: 'Segmentation fault' })).toEqual({ status: 1, lastLine: '0 passed, 1 failed' });
});
