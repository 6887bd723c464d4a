/**
 * `npm run check`: types, lint and format, the import boundaries, generated docs, the lock file. Changes nothing but
 * build output. The last line is `check passed` or names the parts that failed.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { boundaryProblems } from './boundaries.mjs';
import { docsProblems, generateDocs } from './docs.mjs';
import { installWhatIsMissing, manifestsAheadOfLock } from './lib/install.mjs';
import { run, underRuntimeNode } from './lib/processes.mjs';
import { readJson, root } from './lib/repository.mjs';
import { lockFileProblems } from './lockfile.mjs';
import { migrationProblems } from './migrations.mjs';
import { openApiProblems } from './openapi.mjs';
import { solutionProblems } from './solution.mjs';

/** @param {string} command @param {string[]} args */
async function complaintsOf(command, args) {
  const { code, output } = await run(command, args);
  return code === 0 ? [] : [output.trim() || `${command} ${args.join(' ')} ended with code ${code} and said nothing`];
}

const lockFile = path.join(root, 'package-lock.json');

/** Each part answers with what is wrong; nothing means it passed. @type {[string, () => Promise<string[]>][]} */
const parts = [
  [
    'lock file',
    async () => [...lockFileProblems(readFileSync(lockFile, 'utf8')), ...manifestsAheadOfLock(readJson(lockFile))],
  ],
  ['every workspace is checked', async () => solutionProblems()],
  ['types', () => complaintsOf('tsc', ['-b', '--pretty', 'false'])],
  [
    'lint and format',
    () => complaintsOf('biome', ['check', '--error-on-warnings', '--colors=off', '--max-diagnostics=50', '.']),
  ],
  ['import boundaries', async () => boundaryProblems()],
  ['names of migrations', async () => migrationProblems()],
  ['OpenAPI document', async () => openApiProblems()],
  ['generated docs', async () => docsProblems(await generateDocs())],
];

/** @type {string[]} */
const failed = [];
await installWhatIsMissing();
await underRuntimeNode(import.meta.filename);
for (const [name, part] of parts) {
  const startedAt = performance.now();
  const problems = await part().catch((error) => [String(error?.stack ?? error)]);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(`${problems.length ? 'FAILED' : 'ok    '} ${name} (${seconds} s)`);
  for (const problem of problems) console.log(problem.replace(/^/gm, '  '));
  if (problems.length) failed.push(name);
}
console.log(failed.length ? `check failed: ${failed.join(', ')}` : 'check passed');
process.exitCode = failed.length ? 1 : 0;
