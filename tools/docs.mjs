/**
 * Writes docs/generated/ and .env.example from the code. `npm run docs` builds and writes; `node tools/docs.mjs --check` (part of `npm run
 * check`) only compares.
 *
 * A generator is a module of this list whose `generate()` returns `{ 'file.md': 'text', … }`, file names relative to
 * docs/generated/. It can import build output (`apps/<name>/dist/config.js`) that turbo.json declares as a dependency.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { generate as environment } from './docs/environment.mjs';
import { reportProblems } from './lib/report-problems.mjs';
import { root } from './lib/repository.mjs';

/** @type {string[]} paths from the repository's folder */
const generators = ['tools/docs/contracts.mjs', 'tools/docs/permissions.mjs', 'tools/docs/configuration.mjs'];

/**
 * Runs the generators.
 * @param {string[]} [modules] the generators to run; all by default
 * @returns {Promise<Map<string, string>>} text by file name
 * @throws Error when two generators write the same file
 */
export async function generateDocs(modules = generators) {
  /** @type {Map<string, string>} */
  const files = new Map();
  for (const module of modules) {
    const { generate } = await import(pathToFileURL(path.resolve(root, module)).href);
    for (const [file, text] of Object.entries(await generate())) {
      if (files.has(file))
        throw new Error(`${module} writes docs/generated/${file}, which another generator writes too`);
      files.set(file, text);
    }
  }
  return files;
}

/**
 * How a folder differs from the generators' output, one message each; empty when it is up to date.
 * @param {Map<string, string>} files
 * @param {string} [folder]
 * @returns {string[]}
 */
export function docsProblems(files, folder = path.join(root, 'docs', 'generated')) {
  const present = existsSync(folder) ? readdirSync(folder, { recursive: true, withFileTypes: true }) : [];
  const names = present
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
  const stray = names.filter((name) => !files.has(name)).map((name) => `docs/generated/${name} has no generator`);
  const outdated = [...files]
    .filter(([name, text]) => !names.includes(name) || readFileSync(path.join(folder, name), 'utf8') !== text)
    .map(([name]) => `docs/generated/${name} is out of date; run npm run docs`);
  return [...outdated, ...stray];
}

async function main() {
  const folder = path.join(root, 'docs', 'generated');
  const files = await generateDocs();
  const example = path.join(root, '.env.example');
  const text = await environment();
  if (process.argv.includes('--check')) {
    const current = existsSync(example) && readFileSync(example, 'utf8') === text;
    return reportProblems([
      ...docsProblems(files),
      ...(current ? [] : ['.env.example is out of date; run npm run docs']),
    ]);
  }
  writeFileSync(example, text);
  rmSync(folder, { recursive: true, force: true });
  for (const [name, text] of files) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    writeFileSync(path.join(folder, name), text);
  }
  console.log(`docs/generated: ${files.size} files written, and .env.example`);
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) await main();
