/**
 * Keeps the root tsconfig.json a list of every project in the repository, so that `tsc -b` forgets none.
 * `node tools/solution.mjs` writes it (part of `npm run format`); `npm run check` only compares.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { filesBelow, root, workspaces } from './lib/repository.mjs';

/**
 * The text that the root tsconfig.json should have: each workspace with sources, then its tests.
 * @param {string} [from] the repository to read; this one by default
 * @returns {string}
 */
export function solution(from = root) {
  const projects = workspaces(from).flatMap(({ dir }) => [dir, `${dir}/test`]);
  const references = projects
    .filter((dir) => existsSync(path.join(from, dir, 'tsconfig.json')))
    .filter((dir) => filesBelow(path.join(from, dir), ['.ts', '.tsx', '.mts']).length > 0)
    .map((dir) => `    { "path": "${dir}" },\n`);
  // A comma after each line, the last too, lets git merge two branches that each added a project (.gitattributes).
  return `{\n  "files": [],\n  "references": [\n${references.join('')}  ]\n}\n`;
}

/**
 * What the workspaces lack for being checked, as sentences: a workspace with sources has a tsconfig.json, one with
 * tests has a test/tsconfig.json, and the root lists both.
 * @param {string} [from]
 * @returns {string[]}
 */
export function solutionProblems(from = root) {
  const unchecked = workspaces(from).flatMap(({ dir }) =>
    [`${dir}/src`, `${dir}/test`]
      .filter((place) => filesBelow(path.join(from, place), ['.ts', '.tsx', '.mts']).length > 0)
      .map((place) => (place.endsWith('/src') ? `${dir}/tsconfig.json` : `${place}/tsconfig.json`))
      .filter((file) => !existsSync(path.join(from, file)))
      .map((file) => `${file} is missing, so nothing checks the types beside it`),
  );
  const current = readFileSync(path.join(from, 'tsconfig.json'), 'utf8');
  const listed = (/** @type {string} */ text) => [...new Set(text.match(/"path": "[^"]+"/g))].sort().join();
  return listed(current) === listed(solution(from))
    ? unchecked
    : [...unchecked, 'tsconfig.json does not list every workspace and its tests; run npm run format'];
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  writeFileSync(path.join(root, 'tsconfig.json'), solution());
}
