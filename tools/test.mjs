/**
 * `npm test`: installs what is missing, builds, starts one PostgreSQL for all suites, finds Redis, runs every suite,
 * and prints counts; the last line is `N passed, N failed`. For suites that depend only on their files (`cache` in
 * their turbo.json), turbo restores the report of the last passed run with the same files. In a run of several suites,
 * up to five failed test files are run once more with nothing beside them; what passes only then is named as unsteady.
 *
 * `npm test -- packages/testing` runs one suite (folder, package name, or the last part of either); arguments from
 * the first that begins with `-` are passed to jest: `npm test -- testing -t "shares nothing"`.
 */
import { installWhatIsMissing } from './lib/install.mjs';
import { run, underRuntimeNode } from './lib/processes.mjs';
import { againReport, countReports, failedFiles, removeReports, suites, total } from './lib/suites.mjs';
import { turboArguments } from './lib/turbo.mjs';

/** @returns {Promise<import('./lib/suites.mjs').Count[]>} */
async function main() {
  const args = process.argv.slice(2);
  const options = args.findIndex((arg) => arg.startsWith('-'));
  const jestArgs = options === -1 ? [] : args.slice(options);
  const chosen = suites(options === -1 ? args : args.slice(0, options));
  removeReports(chosen);

  const startedAt = new Date();
  console.log('building');
  const filters = chosen.map(({ name }) => `--filter=${name}`);
  const built = await run(
    'turbo',
    ['run', 'build', ...filters, '--filter=@latchkey/testing', ...turboArguments, '--output-logs=errors-only'],
    { show: true },
  );
  if (built.code !== 0) console.log('the build failed in part; testing the rest');

  const { sharedServers } = await import('../packages/testing/dist/index.js');
  console.log('starting PostgreSQL and looking for Redis');
  const servers = await sharedServers();
  try {
    const env = {
      LATCHKEY_TEST_DATABASE_URL: servers.databaseUrl,
      LATCHKEY_TEST_QUIET_DATABASE_URL: servers.quietDatabaseUrl,
      LATCHKEY_TEST_REDIS_SERVER: servers.redisProgram ?? '',
      LATCHKEY_TEST_MACHINE: `Node ${process.version}, ${process.platform} ${process.arch}`,
      NODE_NO_WARNINGS: '1',
    };
    const tested = await run(
      'turbo',
      ['run', 'test', ...filters, ...turboArguments, '--concurrency=2', '--', ...jestArgs],
      { show: true, env },
    );
    let { code } = tested;
    const failed = chosen.length > 1 ? failedFiles(chosen) : [];
    if (failed.length > 0) {
      code = 0;
      for (const { suite, files } of failed) {
        console.log(`running what failed in ${suite.dir} once more, alone: ${files.join(', ')}`);
        const again = await run(
          'turbo',
          [
            'run',
            'test',
            `--filter=${suite.name}`,
            ...turboArguments,
            '--only',
            '--force',
            '--',
            '--runTestsByPath',
            ...files,
          ],
          { show: true, env: { ...env, JEST_WORKERS: '1', LATCHKEY_TEST_REPORT: againReport } },
        );
        code ||= again.code;
      }
    }
    return countReports(chosen, code, startedAt);
  } finally {
    await servers.close();
  }
}

/** @type {import('./lib/suites.mjs').Count[]} */
let counts;
try {
  await installWhatIsMissing();
  await underRuntimeNode(import.meta.filename);
  counts = await main();
} catch (error) {
  console.error(error);
  counts = [{ dir: 'npm test', passed: 0, failed: 1, note: 'failed, see above' }];
}
const width = Math.max(...counts.map(({ dir }) => dir.length));
console.log('');
for (const { dir, passed, failed, note } of counts) {
  console.log(`${dir.padEnd(width)}  ${passed} passed, ${failed} failed${note ? ` (${note})` : ''}`);
}
console.log(total(counts));
process.exitCode = counts.some(({ failed }) => failed > 0) ? 1 : 0;
