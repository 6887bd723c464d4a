/**
 * Keeps the root tsconfig.json a list of every project in the repository, so that `tsc -b` forgets none, and each
 * project's references those of the workspaces that it imports, so that in a fresh clone `tsc -b` builds them first.
 * `node tools/solution.mjs` writes both (part of `npm run format`); `npm run check` only compares.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { importsOf } from './boundaries.mjs';
import { filesBelow, readJson, root, workspaces } from './lib/repository.mjs';

const endings = ['.ts', '.tsx', '.mts'];

/**
 * The text that the root tsconfig.json should have: each workspace with sources, then its tests.
 * @param {string} [from] the repository to read; this one by default
 * @returns {string}
 */
export function solution(from = root) {
  const projects = workspaces(from).flatMap(({ dir }) => [dir, `${dir}/test`]);
  const references = projects
    .filter((dir) => existsSync(path.join(from, dir, 'tsconfig.json')))
    .filter((dir) => filesBelow(path.join(from, dir), endings).length > 0)
    .map((dir) => `    { "path": "${dir}" },\n`);
  // A comma after each line, the last too, lets git merge two branches that each added a project (.gitattributes).
  return `{\n  "files": [],\n  "references": [\n${references.join('')}  ]\n}\n`;
}

/**
 * The names of the workspaces that the files of a folder import.
 * @param {string} from
 * @param {string} place
 * @returns {string[]}
 */
function importedWorkspaces(from, place) {
  const names = new Set(workspaces(from).map(({ name }) => name));
  const imported = filesBelow(path.join(from, place), endings)
    .flatMap((file) => importsOf(readFileSync(path.join(from, place, file), 'utf8')))
    .map((specifier) => specifier.split('/').slice(0, 2).join('/'));
  return [...new Set(imported)].filter((name) => names.has(name));
}

/**
 * The projects that `tsc -b` builds before this one: those that it references, and those that they do.
 * @param {string} from
 * @param {string} project its folder
 * @param {Set<string>} [found]
 * @returns {Set<string>}
 */
function reachable(from, project, found = new Set()) {
  const file = path.join(from, project, 'tsconfig.json');
  for (const reference of existsSync(file) ? (readJson(file).references ?? []) : []) {
    const target = path.posix.join(project, reference.path);
    if (found.has(target)) continue;
    found.add(target);
    reachable(from, target, found);
  }
  return found;
}

/**
 * The references that projects lack: each reaches the workspaces that its files import, and a test project the project
 * that it tests.
 * @param {string} [from]
 * @returns {{file: string, path: string}[]} tsconfig.json from the repository's folder, and what it should reference
 */
export function missingReferences(from = root) {
  const all = workspaces(from);
  const dirByName = new Map(all.map(({ name, dir }) => [name, dir]));
  const isProject = (/** @type {string} */ dir) => existsSync(path.join(from, dir, 'tsconfig.json'));
  return all.flatMap(({ dir }) =>
    [dir, `${dir}/test`].filter(isProject).flatMap((project) => {
      const imported = importedWorkspaces(from, project === dir ? `${dir}/src` : project)
        .map((name) => dirByName.get(name))
        .filter((target) => target !== undefined && target !== dir);
      const wanted = new Set(project === dir ? imported : [dir, ...imported]);
      const file = path.posix.join(project, 'tsconfig.json');
      const present = reachable(from, project);
      return [...wanted]
        .filter((target) => target !== undefined && isProject(target) && !present.has(target))
        .map((target) => ({ file, path: path.posix.relative(project, /** @type {string} */ (target)) }));
    }),
  );
}

/**
 * What the workspaces lack for being checked, as sentences: a workspace with sources has a tsconfig.json, one with
 * tests has a test/tsconfig.json, the root lists both, and they reference what they import.
 * @param {string} [from]
 * @returns {string[]}
 */
export function solutionProblems(from = root) {
  const unchecked = workspaces(from).flatMap(({ dir }) =>
    [`${dir}/src`, `${dir}/test`]
      .filter((place) => filesBelow(path.join(from, place), endings).length > 0)
      .map((place) => (place.endsWith('/src') ? `${dir}/tsconfig.json` : `${place}/tsconfig.json`))
      .filter((file) => !existsSync(path.join(from, file)))
      .map((file) => `${file} is missing, so nothing checks the types beside it`),
  );
  const unreferenced = missingReferences(from).map(
    ({ file, path: wanted }) => `${file} does not reference ${wanted}, which its files import; run npm run format`,
  );
  const undeclared = workspaces(from).flatMap(({ dir, manifest }) => {
    const declared = { ...manifest['dependencies'], ...manifest['devDependencies'] };
    return [`${dir}/src`, `${dir}/test`]
      .flatMap((place) => importedWorkspaces(from, place))
      .filter((name, index, all) => name !== manifest['name'] && !declared[name] && all.indexOf(name) === index)
      .map((name) => `${dir}/package.json does not depend on ${name}, which its files import`);
  });
  const current = readFileSync(path.join(from, 'tsconfig.json'), 'utf8');
  const listed = (/** @type {string} */ text) => [...new Set(text.match(/"path": "[^"]+"/g))].sort().join();
  const unlisted =
    listed(current) === listed(solution(from))
      ? []
      : ['tsconfig.json does not list every workspace and its tests; run npm run format'];
  return [...unchecked, ...undeclared, ...unreferenced, ...unlisted];
}

function write() {
  for (const { file, path: wanted } of missingReferences()) {
    const config = readJson(path.join(root, file));
    config.references = [...(config.references ?? []), { path: wanted }];
    writeFileSync(path.join(root, file), `${JSON.stringify(config, null, 2)}\n`);
  }
  writeFileSync(path.join(root, 'tsconfig.json'), solution());
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) write();
