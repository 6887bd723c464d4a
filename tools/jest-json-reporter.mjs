import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/**
 * Writes each workspace's counts and failed files to `.reports/jest.json` (or the name in LATCHKEY_TEST_REPORT), for the
 * sum that `npm test` prints last. A run without a report or without a passed test exits with 1 even where jest exits
 * with 0, because turbo caches runs that exit with 0.
 */
export default class JsonReporter {
  /** @param {import('@jest/types').Config.GlobalConfig} globalConfig */
  constructor(globalConfig) {
    this.file = path.join(globalConfig.rootDir, '.reports', process.env['LATCHKEY_TEST_REPORT'] ?? 'jest.json');
    this.rootDir = globalConfig.rootDir;
    this.passed = false;
    process.on('exit', (code) => {
      if (code === 0 && !this.passed) process.exitCode = 1;
    });
  }

  /**
   * @param {unknown} _contexts
   * @param {import('@jest/reporters').AggregatedResult} results
   */
  onRunComplete(_contexts, results) {
    mkdirSync(path.dirname(this.file), { recursive: true });
    writeFileSync(
      this.file,
      JSON.stringify({
        passed: results.numPassedTests,
        failed: results.numFailedTests + results.numRuntimeErrorTestSuites,
        skipped: results.numPendingTests + results.numTodoTests,
        files: results.numTotalTestSuites,
        failedFiles: results.testResults
          .filter((file) => file.numFailingTests > 0 || file.testExecError)
          .map((file) => ({
            file: path.relative(this.rootDir, file.testFilePath),
            passed: file.numPassingTests,
            failed: file.numFailingTests + (file.testExecError ? 1 : 0),
            tests: file.testResults.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName),
          })),
        seconds: Math.round((Date.now() - results.startTime) / 1000),
        finishedAt: new Date().toISOString(),
      }),
    );
    this.passed = results.numPassedTests > 0 && results.numFailedTests + results.numRuntimeErrorTestSuites === 0;
  }
}
