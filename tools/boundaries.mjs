/**
 * The import boundaries (see ARCHITECTURE.md), checked by the imports in every workspace's `src/`.
 *
 * Rule 1  Apps import packages, never another app. token-format imports nothing, contracts only zod, verifier only
 *         those two; runtime and client import no other packages. Only testing and tools import local-stack.
 *         A workspace is entered by its package name, never by a path into it.
 * Rule 2  Within an app a folder imports only folders below it (see `layers`), by their `index.ts`.
 * Rule 3  No import cycles, not even for types.
 *
 * Also checked, for the tasks of turbo.json: package.json declares every imported workspace, because turbo builds in that
 * order, and has the scripts that check the types of its sources and tests.
 */
import { existsSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { reportProblems } from './lib/report-problems.mjs';
import { filesBelow, root, workspaces } from './lib/repository.mjs';

const base = ['token-format', 'contracts'];

/** Which workspaces each workspace may import, and with `outside` which packages from npm (any when absent). */
const boundaries = /** @type {Record<string, {may: string[], outside?: string[]}>} */ ({
  'packages/token-format': { may: [], outside: [] },
  'packages/contracts': { may: [], outside: ['zod'] },
  'packages/verifier': { may: base, outside: [] },
  'packages/runtime': { may: base },
  'packages/client': { may: base },
  'packages/backup': { may: [...base, 'runtime'] },
  'packages/local-stack': { may: [] },
  'packages/testing': { may: [...base, 'verifier', 'runtime', 'client', 'local-stack'] },
  'apps/console': { may: [...base, 'client'] },
  tools: { may: [...base, 'runtime', 'client', 'local-stack', 'backup'] },
  bench: { may: [...base, 'verifier', 'runtime', 'client', 'local-stack', 'e2e'] },
  simulation: { may: [...base, 'verifier', 'runtime', 'token-service'] },
});
/** What every other app, example, and the programs around them (e2e, bench) may import. */
const everyOther = [...base, 'verifier', 'runtime', 'client'];
const mayImportTesting = ['e2e', 'bench', 'simulation'];

/** The folders of each app, from top to bottom: a folder imports only folders below it. */
const layers = /** @type {Record<string, string[]>} */ ({
  'apps/token-service': [
    'authentication',
    'mcp',
    'oauth',
    'accounts',
    'system',
    'tokens',
    'projects',
    'maintenance',
    'verification',
    'invalidation',
    'ledger',
    'audit',
    'usage',
    'notices',
    'rpc',
    'http',
    'authorization',
    'database',
    'redis',
  ],
  'apps/gateway': ['processes', 'nest', 'handlers', 'check', 'engine', 'http', 'streams', 'routes'],
  'apps/jobs': ['ops', 'usage', 'notices', 'expiry', 'canary', 'audit', 'webhooks'],
});

/**
 * The module names that a source file imports, exports from, or loads with `import()` or `require()`.
 * @param {string} source
 * @returns {string[]}
 */
export function importsOf(source) {
  // Whole-line and block comments can quote imports; the rest of a line after `//` can be part of a URL.
  const code = source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const forms = [
    /\b(?:import|export)\s[^'"`;()]*?\bfrom\s*['"]([^'"]+)['"]/g,
    /(?:^|;)\s*import\s*['"]([^'"]+)['"]/gm,
    /\b(?:import|require|import\.meta\.resolve)\s*\(\s*['"`]([^'"`]+)['"`]/g,
  ];
  return [...new Set(forms.flatMap((form) => [...code.matchAll(form)].map((match) => match[1] ?? '')))];
}

/** @param {string} specifier */
function packageName(specifier) {
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] ?? '');
}

/**
 * Why a workspace may not import a package, or `null` when it may.
 * @param {string} dir the importing workspace's folder
 * @param {string} specifier
 * @param {Map<string, string>} dirByName the workspaces' folders by package name
 */
function packageProblem(dir, specifier, dirByName) {
  const name = packageName(specifier);
  const target = dirByName.get(name);
  const rule = boundaries[dir];
  if (target === undefined) {
    const builtin = specifier.startsWith('node:') || builtinModules.includes(name);
    if (builtin || !rule?.outside || rule.outside.includes(name)) return null;
    const allowed = [...rule.may, ...rule.outside];
    return `rule 1 says ${dir} imports ${allowed.length ? `only ${allowed.join(', ')}` : 'nothing'}`;
  }
  if (target === dir) return `rule 1 says a workspace imports its own files by relative paths`;
  const short = path.posix.basename(target);
  const may = rule ? [...rule.may] : [...everyOther];
  if (mayImportTesting.includes(dir)) may.push('testing');
  if (may.includes(short)) return null;
  if (target.startsWith('apps/') && dir.startsWith('apps/'))
    return 'rule 1 says apps import packages, never another app';
  if (target.startsWith('apps/')) return `rule 1 says ${dir} imports packages, never an app`;
  if (short === 'local-stack') return 'rule 1 says only packages/testing, bench and tools import local-stack';
  return `rule 1 says ${dir} imports ${may.length ? `only ${may.join(', ')} of the workspaces` : 'no other workspace'}`;
}

/**
 * Why a file may not import another by a relative path, or `null` when it may.
 * @param {string} dir the workspace's folder
 * @param {string} file the importing file, relative to the workspace
 * @param {string} specifier
 */
function pathProblem(dir, file, specifier) {
  const target = path.posix.join(path.posix.dirname(file), specifier);
  if (target.startsWith('../'))
    return 'rule 1 says a workspace is entered by its package name, never by a path into it';
  if (!dir.startsWith('apps/') || dir === 'apps/console') return null;
  const feature = (/** @type {string} */ at) => /^src\/([^/]+)\//.exec(at)?.[1];
  const from = feature(file);
  const to = feature(target);
  if (!to || from === to || from === undefined) return null;
  const order = layers[dir] ?? [];
  const unlisted = [from, to].find((folder) => !order.includes(folder));
  if (unlisted !== undefined)
    return `rule 2 says src/${unlisted}/ must be listed in the layers of ${dir} in tools/boundaries.mjs`;
  if (order.indexOf(from) > order.indexOf(to))
    return `rule 2 says src/${from}/ imports only folders below it, and src/${to}/ is above`;
  if (target === `src/${to}/index.js`) return null;
  return `rule 2 says src/${to}/ is entered by its index.ts`;
}

/** A file without its extension: a `.ts` is imported as `.js`. @param {string} file */
const stemOf = (file) => file.replace(/\.[cm]?[jt]sx?$/, '');

/**
 * The import cycles, each once, as a list of files.
 * @param {Map<string, string[]>} imports the imports of each file
 * @returns {string[][]}
 */
export function cyclesOf(imports) {
  /** @type {string[][]} */
  const cycles = [];
  /** @type {string[]} */
  const stack = [];
  const done = new Set();
  /** @param {string} file */
  const follow = (file) => {
    if (done.has(file)) return;
    const at = stack.indexOf(file);
    if (at >= 0) {
      cycles.push(stack.slice(at));
      return;
    }
    stack.push(file);
    for (const next of imports.get(file) ?? []) follow(next);
    stack.pop();
    done.add(file);
  };
  for (const file of imports.keys()) follow(file);
  return cycles;
}

/**
 * Every import that breaks a rule, one message each: `file: imports X, but rule N says …`.
 * @param {string} [from] the repository to read; this one by default
 * @returns {string[]}
 */
export function boundaryProblems(from = root) {
  const all = workspaces(from);
  const dirByName = new Map(all.map(({ name, dir }) => [name, dir]));
  /** @type {Map<string, string[]>} */
  const imports = new Map();
  const problems = all.flatMap(({ dir }) => {
    const sources = filesBelow(path.join(from, dir, 'src'), ['.ts', '.tsx', '.mts', '.js', '.mjs', '.jsx']);
    return sources.flatMap((source) => {
      const file = `src/${source}`;
      const specifiers = importsOf(readFileSync(path.join(from, dir, file), 'utf8'));
      const paths = specifiers.filter((specifier) => specifier.startsWith('.'));
      imports.set(
        stemOf(path.posix.join(dir, file)),
        paths.map((specifier) => stemOf(path.posix.join(dir, path.posix.dirname(file), specifier))),
      );
      return specifiers.flatMap((specifier) => {
        const relative = specifier.startsWith('.');
        const problem = relative ? pathProblem(dir, file, specifier) : packageProblem(dir, specifier, dirByName);
        return problem ? [`${dir}/${file}: imports ${specifier}, but ${problem}`] : [];
      });
    });
  });
  const cycles = cyclesOf(imports).map(
    (files) => `${files[0]}: imports itself through ${files.slice(1).join(', ')}, but rule 3 forbids cycles`,
  );
  return [...problems, ...cycles];
}

/** The script with which turbo checks the types of each folder, and the project that it compiles. */
const checkedBy = [
  { folder: 'src', script: 'build', project: 'tsconfig.json' },
  { folder: 'test', script: 'typecheck', project: 'test/tsconfig.json' },
];

/**
 * What workspaces lack to be built in order and fully type-checked, one message each.
 * @param {string} [from] the repository to read; this one by default
 * @returns {string[]}
 */
export function workspaceProblems(from = root) {
  const all = workspaces(from);
  const names = new Set(all.map(({ name }) => name));
  return all.flatMap(({ name, dir, manifest }) => {
    const declared = { ...manifest['dependencies'], ...manifest['devDependencies'] };
    const imported = new Set();
    const unchecked = checkedBy.flatMap(({ folder, script, project }) => {
      const place = path.join(from, dir, folder);
      const files = filesBelow(place, ['.ts', '.tsx', '.mts']);
      for (const file of files)
        for (const specifier of importsOf(readFileSync(path.join(place, file), 'utf8')))
          imported.add(packageName(specifier));
      if (!files.length || (manifest['scripts']?.[script] && existsSync(path.join(from, dir, project)))) return [];
      return [`${dir}: nothing checks the types of ${folder}/; it needs ${project} and the script ${script}`];
    });
    const undeclared = [...imported]
      .filter((other) => names.has(other) && other !== name && !declared[other])
      .map((other) => `${dir}/package.json does not depend on ${other}, which its files import`);
    return [...unchecked, ...undeclared];
  });
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url))
  reportProblems([...boundaryProblems(), ...workspaceProblems()]);
