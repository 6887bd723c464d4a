/**
 * Migrations run in the order of their names, which must be the same everywhere: a new one comes after all released ones.
 * So each is named by its creation time, as TypeORM does (`1796000000000-what.ts`, the class `What1796000000000`). Older
 * ones have four digits; no more of those can be added. The services know them by the list in packages/contracts.
 *
 * Services of the version before go on while the database is migrated. So each migration says what it is: `expand` adds only,
 * `contract` removes what no supported version uses any more, and says which version that is (docs/releasing.md).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './lib/repository.mjs';

const FOLDER = 'apps/token-service/migrations';
const LAST_NUMBERED = '0470';
const LIST = 'packages/contracts/src/schema.ts';
/** The first one that says its kind. */
const FIRST_WITH_KIND = '1796098773848';

/**
 * Problems of migrations, one message each: their names, the list of them, and what they do to services of before.
 * @param {string} [from] the repository to read; this one by default
 * @returns {string[]}
 */
export function migrationProblems(from = root) {
  const folder = path.join(from, FOLDER);
  const files = readdirSync(folder).filter((file) => file.endsWith('.ts'));
  return [
    ...files.flatMap((file) => {
      const text = readFileSync(path.join(folder, file), 'utf8');
      return [...nameProblems(file, text), ...kindProblems(file, text)];
    }),
    ...orderProblems(asAdded(from, files)),
    ...listProblems(
      files.map((file) => className(readFileSync(path.join(folder, file), 'utf8'))),
      readFileSync(path.join(from, LIST), 'utf8'),
    ),
  ];
}

/** @param {string} text */
const className = (text) => /export class (\w+) implements MigrationInterface/.exec(text)?.[1] ?? '';

/**
 * @param {readonly string[]} names of the classes
 * @param {string} list the text of the list
 * @returns {string[]}
 */
export function listProblems(names, list) {
  const time = (/** @type {string} */ name) => name.slice(-13);
  const sorted = [...names].sort((a, b) => (time(a) < time(b) ? -1 : 1));
  const listed = [...list.matchAll(/^ {2}'(\w+)',$/gm)].map(([, name]) => name);
  const i = sorted.findIndex((name, n) => name !== listed[n]);
  if (i < 0 && listed.length === sorted.length) return [];
  return [
    `${LIST}: MIGRATIONS must name all migrations in their order; ${sorted[i] ?? listed[sorted.length]} is not at its place`,
  ];
}

/** What takes something away from services of before, in SQL without strings and comments. */
const REMOVES =
  /\bDROP\s+(?!INDEX\b|CONSTRAINT\b|DEFAULT\b|NOT\s+NULL\b|TRIGGER\b)|\bRENAME\b|\bALTER\s+COLUMN\s+\w+\s+(SET\s+DATA\s+)?TYPE\b|\bSET\s+NOT\s+NULL\b|\bREVOKE\b/i;
const INDEX =
  /\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?\w*\s*ON\s+(?:ONLY\s+)?(\w+)/gi;

/**
 * What can be seen in its text: a migration that is not said to contract removes nothing, one that contracts says from which
 * version on services can go on, and an index of a table that has rows is made concurrently.
 * @param {string} file
 * @param {string} text
 * @returns {string[]}
 */
export function kindProblems(file, text) {
  const [time = ''] = /^\d{13}/.exec(file) ?? [];
  if (time < FIRST_WITH_KIND) return [];
  const problem = (/** @type {string} */ what) => `${FOLDER}/${file}: ${what}; see docs/releasing.md`;
  const [, kind] = /^ {2}readonly kind = '(expand|contract)';$/m.exec(text) ?? [];
  if (!kind) return [problem("say readonly kind = 'expand' or 'contract'")];
  const problems = [];
  const [removes] = kind === 'expand' ? (REMOVES.exec(text) ?? []) : [];
  if (removes)
    problems.push(problem(`it is said to expand, but services of before can miss what "${removes.trim()}" takes away`));
  if (kind === 'contract' && !/\bCREATE OR REPLACE FUNCTION schema_min_version\b/.test(text))
    problems.push(
      problem(
        'it contracts, so it replaces the function schema_min_version by one with the oldest version that can go on',
      ),
    );
  const created = [...text.matchAll(/\bCREATE\s+TABLE\s+(\w+)/gi)].map(([, table]) => table);
  for (const [, concurrently, table] of text.matchAll(INDEX)) {
    if (!concurrently && !created.includes(table))
      problems.push(problem(`create the index of ${table} CONCURRENTLY: nobody can write to the table meanwhile`));
    if (concurrently && !/^ {2}readonly transaction = false;$/m.test(text))
      problems.push(problem('CREATE INDEX CONCURRENTLY needs readonly transaction = false'));
  }
  return problems;
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
