/**
 * `npm run check`: types, lint and format, the import boundaries, the words, generated docs, the lock file. Changes only build
 * output. Most parts are tasks of turbo.json and are cached; two quick ones with other inputs are not. The last line is
 * `check passed` or names the parts that failed.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { installWhatIsMissing, manifestsAheadOfLock } from './lib/install.mjs';
import { run, underRuntimeNode } from './lib/processes.mjs';
import { readJson, root } from './lib/repository.mjs';
import { failedTasks, turboArguments } from './lib/turbo.mjs';
import { lockFileProblems } from './lockfile.mjs';
import { migrationProblems } from './migrations.mjs';

const lockFile = path.join(root, 'package-lock.json');
const tasks = ['build', 'typecheck', 'lint', 'boundaries', 'words', 'openapi', 'docs'];

/** Each part returns its problems; none means it passed. @type {[string, () => string[]][]} */
const uncached = [
  [
    'lock file',
    () => [...lockFileProblems(readFileSync(lockFile, 'utf8')), ...manifestsAheadOfLock(readJson(lockFile))],
  ],
  ['migrations', () => migrationProblems()], // the order is in git's history
];

await installWhatIsMissing();
await underRuntimeNode(import.meta.filename);
/** @type {string[]} */
const failed = [];
for (const [name, part] of uncached) {
  const problems = part();
  for (const problem of problems) console.log(problem);
  if (problems.length) failed.push(name);
}
const { code, output } = await run('turbo', ['run', ...tasks, ...turboArguments, '--output-logs=errors-only']);
console.log(output.trim());
if (code !== 0) failed.push(...failedTasks(output));
console.log(failed.length ? `check failed: ${failed.join(', ')}` : 'check passed');
process.exitCode = failed.length ? 1 : 0;
