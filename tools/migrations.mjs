/**
 * Migrations run in the order of their names, which must be the same everywhere: a new one comes after all released ones.
 * So each is named by its creation time, as TypeORM does (`1796000000000-what.ts`, the class `What1796000000000`). Older
 * ones have four digits; no more of those can be added.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './lib/repository.mjs';

const FOLDER = 'apps/token-service/migrations';
const LAST_NUMBERED = '0470';

/**
 * Problems of the names of migrations, one message each.
 * @param {string} [from] the repository to read; this one by default
 * @returns {string[]}
 */
export function migrationProblems(from = root) {
  const folder = path.join(from, FOLDER);
  const files = readdirSync(folder).filter((file) => file.endsWith('.ts'));
  return [
    ...files.flatMap((file) => nameProblems(file, readFileSync(path.join(folder, file), 'utf8'))),
    ...orderProblems(asAdded(from, files)),
  ];
}

/**
 * @param {string} file
 * @param {string} text
 * @returns {string[]}
 */
export function nameProblems(file, text) {
  const [, number] = /^(\d{4}|\d{13})-[a-z0-9-]+\.ts$/.exec(file) ?? [];
  if (!number || (number.length === 4 && number > LAST_NUMBERED))
    return [`${FOLDER}/${file}: name it by the time at which it is written: ${Date.now()}-what-it-does.ts`];
  const suffix = number.padStart(13, '0');
  const [, name] = /export class (\w+) implements MigrationInterface/.exec(text) ?? [];
  return name?.endsWith(suffix) ? [] : [`${FOLDER}/${file}: its class must be named …${suffix}: TypeORM sorts by that`];
}

/**
 * @param {readonly string[]} files those named by time, in the order in which they were added
 * @returns {string[]}
 */
export function orderProblems(files) {
  const timed = files.filter((file) => /^\d{13}-/.test(file));
  return timed.flatMap((file, i) => {
    const before = timed.slice(0, i).find((other) => other > file);
    return before === undefined
      ? []
      : [
          `${FOLDER}/${file}: it was added after ${before}, so its time must be later: some databases have run that one`,
        ];
  });
}

/** In the order of git's history; uncommitted files come last. @param {string} from @param {string[]} files */
function asAdded(from, files) {
  if (!existsSync(path.join(from, '.git'))) return [];
  const log = ['log', '--reverse', '--diff-filter=A', '--no-renames', '--format=', '--name-only', '--', FOLDER];
  const known = execFileSync('git', log, { cwd: from, encoding: 'utf8' })
    .split('\n')
    .map((file) => path.basename(file));
  const added = [...new Set(known)].filter((file) => files.includes(file));
  return [...added, ...files.filter((file) => !added.includes(file)).sort()];
}
