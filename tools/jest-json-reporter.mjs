import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Leaves each workspace's counts in `.reports/jest.json`, for the sum that `npm test` prints last. */
export default class JsonReporter {
  /** @param {import('@jest/types').Config.GlobalConfig} globalConfig */
  constructor(globalConfig) {
    this.file = path.join(globalConfig.rootDir, '.reports', 'jest.json');
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
      }),
    );
  }
}
