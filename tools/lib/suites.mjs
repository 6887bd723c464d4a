import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { filesBelow, readJson, root, workspaces } from './repository.mjs';

/**
 * @typedef {import('./repository.mjs').Workspace} Workspace
 * @typedef {{dir: string, passed: number, failed: number, note: string}} Count
 * @typedef {{file: string, passed: number, failed: number, tests: string[]}} FailedFile
 */

/** The report of the files that were run again. */
export const againReport = 'again.json';

/** More failed files than this are no accident of a busy machine, and are not run again. */
const mostRunAgain = 5;

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

/** @param {string} dir @param {string} from @param {string} [name] */
const reportOf = (dir, from, name = 'jest.json') => path.join(from, dir, '.reports', name);

/**
 * Removes the reports of earlier runs, so that only this run counts.
 * @param {Workspace[]} ran
 * @param {string} [from]
 */
export function removeReports(ran, from = root) {
  for (const { dir } of ran) {
    for (const name of ['jest.json', againReport]) rmSync(reportOf(dir, from, name), { force: true });
  }
}

/**
 * The test files that failed, if they are few enough to be run once more with nothing beside them.
 * @param {Workspace[]} ran
 * @param {string} [from]
 * @returns {{suite: Workspace, files: string[]}[]} empty when none failed, when more than five did, or when a suite failed
 *   otherwise than by its tests
 */
export function failedFiles(ran, from = root) {
  const failed = [];
  for (const suite of ran) {
    const file = reportOf(suite.dir, from);
    if (!existsSync(file)) return [];
    const { passed, failed: count, failedFiles: files } = readJson(file);
    if (passed + count === 0) return [];
    if (files.length > 0) failed.push({ suite, files: files.map((/** @type {FailedFile} */ each) => each.file) });
  }
  return failed.reduce((sum, { files }) => sum + files.length, 0) > mostRunAgain ? [] : failed;
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
    return withSecondRun({ dir, passed, failed, note: skipped ? `${skipped} skipped, ${when}` : when }, from);
  });
  if (exitCode !== 0 && counts.every(({ failed }) => failed === 0)) {
    counts.push({ dir: 'the run as a whole', passed: 0, failed: 1, note: `ended with code ${exitCode}, see above` });
  }
  return counts;
}

/**
 * The counts when the failed files were run again: theirs are replaced, and the note names what passed only then.
 * @param {Count} count
 * @param {string} from
 * @returns {Count}
 */
function withSecondRun(count, from) {
  const file = reportOf(count.dir, from, againReport);
  if (!existsSync(file)) return count;
  /** @type {FailedFile[]} */
  const first = readJson(reportOf(count.dir, from)).failedFiles;
  const again = readJson(file);
  const sum = (/** @type {'passed' | 'failed'} */ kind) => first.reduce((before, each) => before + each[kind], 0);
  const stillFailed = new Set(again.failedFiles.flatMap((/** @type {FailedFile} */ each) => each.tests));
  const unsteady = first.flatMap(({ file, tests }) =>
    tests.filter((test) => !stillFailed.has(test)).map((test) => `${file}: ${test}`),
  );
  return {
    dir: count.dir,
    passed: count.passed - sum('passed') + again.passed,
    failed: count.failed - sum('failed') + again.failed,
    note: [count.note, ...unsteady.map((test) => `UNSTEADY, passed only alone: ${test}`)].join('; '),
  };
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
