import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Leaves each workspace's counts in `.reports/jest.json`, for the sum that `npm test` prints last. */
export default class JsonReporter {
  constructor(globalConfig) {
    this.file = path.join(globalConfig.rootDir, '.reports', 'jest.json');
  }
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
