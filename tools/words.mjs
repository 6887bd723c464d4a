/**
 * The vocabulary (docs: CONTRIBUTING.md, "Words"): words that only this project would use where the field has a term.
 * Read in code, comments, logs, errors, tests and documents, inside of names too; not in what others rely on:
 * migrations, generated files, the changelog's history.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { reportProblems } from './lib/report-problems.mjs';
import { root } from './lib/repository.mjs';

/**
 * @typedef {object} Word
 * @property {RegExp} word in lower case, as a whole word
 * @property {string} say the field's term
 * @property {RegExp} [but] what stands on the same line where it is right: a name on the wire or in the database, say
 */

/** @type {Word[]} */
export const words = [
  {
    word: /doors?/,
    say: 'server, handler, endpoint, port',
    but: /CANARY_DOORS|door_away|x[-_]latchkey[-_]door|'door'/,
  },
  { word: /rooms?/, say: 'module', but: /(no|is|makes?) room\b/i },
  { word: /refusals?/, say: 'error, ApiError, ErrorResponse' },
  { word: /narrowings?/, say: 'new invalidation' },
  { word: /carriers?/, say: 'mailer', but: /letter_carrier/ },
  { word: /whoever/, say: 'the caller, anyone who', but: /whoever was there before/ },
  { word: /towns?|workshops?|journeys?/, say: 'model, ToolContext, OidcTransaction' },
  { word: /(is|was|are|were) away/, say: 'is unavailable' },
  { word: /dies? with|made with it/, say: 'revoked with, derived from' },
  { word: /past its keep/, say: 'expired' },
  { word: /e-mails?/, say: 'email', but: /by: 'e-mail'|\.getBy/ },
];

const endings = /\.(ts|tsx|mts|mjs|js|md|proto|ya?ml|conf)$/;
const beyond =
  /(^|\/)(migrations|generated|dist)\/|^CHANGELOG\.md$|^package-lock\.json$|^tools\/(words\.mjs|test\/words\.test\.ts)$|^apps\/console\/src\/texts\.ts$/;

/**
 * @param {string} file relative to the repository
 * @param {string} text
 * @returns {string[]} each place as a sentence
 */
export function wordProblems(file, text) {
  return text.split('\n').flatMap((line, i) => {
    // The words that names are made of.
    const spaced = line.replace(/([a-z0-9])([A-Z])/g, '$1 $2').replaceAll('_', ' ');
    return words.flatMap(({ word, say, but }) => {
      const found = new RegExp(`(?<![\\w-])(${word.source})(?![\\w-])`, 'i').exec(spaced);
      return found && !but?.test(line) ? [`${file}:${i + 1}: "${found[1]}": say ${say}`] : [];
    });
  });
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  const read = files.split('\n').filter((file) => endings.test(file) && !beyond.test(file));
  reportProblems(
    read.flatMap((file) => [
      ...wordProblems(file, file),
      ...wordProblems(file, readFileSync(path.join(root, file), 'utf8')),
    ]),
  );
}
