import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { filesBelow, readJson, root, workspaces } from './repository.mjs';

/**
 * @typedef {import('./repository.mjs').Workspace} Workspace
 * @typedef {{dir: string, passed: number, failed: number, note: string}} Count
 */

/**
 * The workspaces that `npm test` runs: those with a `test` script.
 * @param {string[]} wanted folders, package names or the last part of either; all if empty
 * @param {Workspace[]} [all]
 * @returns {Workspace[]}
 * @throws Error naming the existing suites, when a wanted one is no workspace or has no tests
 */
export function suites(wanted, all = workspaces()) {
  const tested = all.filter(({ manifest }) => manifest['scripts']?.test);
  if (wanted.length === 0) return tested;
  return wanted.map((word) => {
    const name = word.replace(/\/+$/, '');
    const found = tested.find(
      (each) => each.dir === name || each.name === name || path.posix.basename(each.dir) === name,
    );
    if (!found) throw new Error(`no suite is called ${word}; there are ${tested.map(({ dir }) => dir).join(', ')}`);
    return found;
  });
}

/** @param {string} dir @param {string} from */
const reportOf = (dir, from) => path.join(from, dir, '.reports', 'jest.json');

/**
 * Removes the reports of earlier runs, so that only this run counts.
 * @param {Workspace[]} ran
 * @param {string} [from]
 */
export function removeReports(ran, from = root) {
  for (const { dir } of ran) rmSync(reportOf(dir, from), { force: true });
}

/**
 * The counts of each suite's report. No report, an empty one, and a run that failed without a failed test count as one
 * failure each.
 * @param {Workspace[]} ran
 * @param {number} exitCode of turbo
 * @param {Date} startedAt the start of the run: the note marks older reports, which come from the cache
 * @param {string} [from]
 * @returns {Count[]}
 */
export function countReports(ran, exitCode, startedAt, from = root) {
  const counts = ran.map(({ dir }) => {
    const file = reportOf(dir, from);
    if (!existsSync(file)) return { dir, passed: 0, failed: 1, note: whyNoReport(path.join(from, dir)) };
    const { passed, failed, skipped, seconds, finishedAt } = readJson(file);
    if (passed + failed === 0) return { dir, passed, failed: 1, note: 'ran no test' };
    const when = new Date(finishedAt) < startedAt ? `nothing changed since ${finishedAt}` : `${seconds} s`;
    return { dir, passed, failed, note: skipped ? `${skipped} skipped, ${when}` : when };
  });
  if (exitCode !== 0 && counts.every(({ failed }) => failed === 0)) {
    counts.push({ dir: 'the run as a whole', passed: 0, failed: 1, note: `ended with code ${exitCode}, see above` });
  }
  return counts;
}

/** @param {string} dir */
function whyNoReport(dir) {
  const tests = filesBelow(path.join(dir, 'test'), ['.test.ts', '.test.tsx']);
  return tests.length ? 'wrote no report: the build failed, or the run was aborted' : 'has a test script and no tests';
}

/**
 * The sum, for the last line.
 * @param {Count[]} counts
 */
export function total(counts) {
  const sum = (/** @type {'passed' | 'failed'} */ kind) => counts.reduce((before, count) => before + count[kind], 0);
  return `${sum('passed')} passed, ${sum('failed')} failed`;
}
