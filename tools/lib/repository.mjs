import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** The repository's folder. */
export const root = path.resolve(import.meta.dirname, '..', '..');

/**
 * @typedef {object} Workspace
 * @property {string} name as in its package.json
 * @property {string} dir relative to the repository, `/`-separated
 * @property {Record<string, any>} manifest its parsed package.json
 */

/**
 * @param {string} file
 * @returns {any}
 */
export function readJson(file) {
  return JSON.parse(readFileSync(file, 'utf8'));
}

/**
 * Every workspace of the root package.json, sorted by folder.
 * @param {string} [from] the repository to read; this one by default
 * @returns {Workspace[]}
 */
export function workspaces(from = root) {
  /** @type {string[]} */
  const patterns = readJson(path.join(from, 'package.json')).workspaces;
  return patterns
    .flatMap((pattern) => expand(from, pattern))
    .filter((dir) => existsSync(path.join(from, dir, 'package.json')))
    .sort()
    .map((dir) => {
      const manifest = readJson(path.join(from, dir, 'package.json'));
      return { name: manifest.name, dir, manifest };
    });
}

/**
 * npm supports more patterns; this repository uses only plain folders and `folder/*`.
 * @param {string} from
 * @param {string} pattern
 * @returns {string[]}
 */
function expand(from, pattern) {
  if (!pattern.endsWith('/*')) return [pattern];
  const parent = pattern.slice(0, -2);
  if (!existsSync(path.join(from, parent))) return [];
  const entries = readdirSync(path.join(from, parent), { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => `${parent}/${entry.name}`);
}

/**
 * The files below a folder whose names end in one of `endings`, relative to it and sorted; build output and installed
 * packages are excluded.
 * @param {string} dir
 * @param {string[]} endings such as `.ts`
 * @returns {string[]}
 */
export function filesBelow(dir, endings) {
  /** @type {string[]} */
  const found = [];
  /** @param {string} at */
  const walk = (at) => {
    for (const entry of readdirSync(path.join(dir, at), { withFileTypes: true })) {
      if (entry.name === 'node_modules' || entry.name === 'dist') continue;
      const here = at ? `${at}/${entry.name}` : entry.name;
      if (entry.isDirectory()) walk(here);
      else if (endings.some((ending) => entry.name.endsWith(ending))) found.push(here);
    }
  };
  if (existsSync(dir)) walk('');
  return found.sort();
}
