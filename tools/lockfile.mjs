/**
 * Keeps `package-lock.json` usable from any registry and on any platform.
 *
 * With a registry that lacks the optional binaries of other platforms npm writes a lock file without them, and `npm ci`
 * then fails (`EUSAGE … Missing: … from lock file`). For each such binary this adds a stub entry (version, os, cpu, libc,
 * optional), which npm skips on other platforms and fetches by name on its own.
 *
 * `node tools/lockfile.mjs` repairs the lock; `node tools/lockfile.mjs --check` only reports (exit code 1).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** @type {Record<string, string>} */
const systems = { win32: 'win32', windows: 'win32', darwin: 'darwin', linux: 'linux', android: 'android' };
for (const name of ['freebsd', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'aix']) systems[name] = name;
/** @type {Record<string, string>} */
const processors = { 64: 'x64', x64: 'x64', arm64: 'arm64', arm: 'arm', armv7: 'arm', ia32: 'ia32', wasm32: 'wasm32' };
for (const name of ['ppc64', 's390x', 'riscv64', 'loong64', 'mips64el']) processors[name] = name;
/** @type {Record<string, string>} */
const libraries = { gnu: 'glibc', gnueabihf: 'glibc', glibc: 'glibc', musl: 'musl', musleabihf: 'musl' };
/** @type {Record<string, string>} */
const singleSystem = { fsevents: 'darwin' };

/**
 * The platform in the name of a binary package (`@swc/core-linux-arm64-musl`), or `null` when it names none.
 * @param {string} name
 * @returns {{os?: string[], cpu?: string[], libc?: string[]} | null}
 */
export function platformOf(name) {
  const system = singleSystem[name];
  if (system) return { os: [system] };
  /** @type {{os?: string[], cpu?: string[], libc?: string[]}} */
  const found = {};
  for (const part of name.split(/[-/.]/)) {
    if (systems[part]) found.os = [systems[part]];
    else if (processors[part]) found.cpu = [processors[part]];
    else if (libraries[part]) found.libc = [libraries[part]];
  }
  if (found.libc && found.os?.[0] !== 'linux') delete found.libc;
  return found.os || found.cpu?.[0] === 'wasm32' ? found : null;
}

/** @param {Record<string, unknown>} packages @param {string} from @param {string} name */
function resolves(packages, from, name) {
  for (let place = from; ; place = place.slice(0, place.lastIndexOf('/node_modules/'))) {
    if (Object.hasOwn(packages, place ? `${place}/node_modules/${name}` : `node_modules/${name}`)) return true;
    if (!place.includes('/node_modules/')) return Object.hasOwn(packages, `node_modules/${name}`);
  }
}

/**
 * The missing stub entries of a parsed lock file by their path, and the missing optional dependencies without a platform
 * in their names (those must be installed, a stub cannot replace them).
 * @param {{packages: Record<string, any>}} lock
 * @returns {{stubs: Record<string, object>, unknown: string[]}}
 */
export function missingStubs(lock) {
  /** @type {Record<string, object>} */
  const stubs = {};
  /** @type {string[]} */
  const unknown = [];
  for (const [place, entry] of Object.entries(lock.packages)) {
    for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
      if (resolves(lock.packages, place, name)) continue;
      const platform = platformOf(name);
      const version = /\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?/.exec(range)?.[0];
      if (!platform || !version) unknown.push(`${name}@${range} (required by ${place || 'the root'})`);
      else stubs[`node_modules/${name}`] = { version, ...platform, ...(entry.dev && { dev: true }), optional: true };
    }
  }
  return { stubs, unknown };
}

/**
 * The lines of a lock file that name a registry or another host, on which every clone would then depend.
 * @param {string} text the lock file as text
 * @returns {string[]} one line each, `line N: …`
 */
export function hostsIn(text) {
  return text
    .split('\n')
    .map((line, index) => ({ line: line.trim(), number: index + 1 }))
    .filter(({ line }) => /^"resolved":\s*"[a-z+]+:\/\//i.test(line))
    .map(({ line, number }) => `line ${number}: ${line}`);
}

/**
 * Problems of a lock file, one message each.
 * @param {string} text
 * @returns {string[]}
 */
export function lockFileProblems(text) {
  const { stubs, unknown } = missingStubs(JSON.parse(text));
  const missing = Object.keys(stubs).length;
  return [
    ...hostsIn(text).map(
      (place) => `package-lock.json ${place} names a host; install with omit-lockfile-registry-resolved`,
    ),
    ...unknown.map((name) => `package-lock.json lacks ${name}; run npm install`),
    ...(missing ? [`package-lock.json lacks ${missing} entries for other platforms; run node tools/lockfile.mjs`] : []),
  ];
}

function main() {
  const file = path.join(import.meta.dirname, '..', 'package-lock.json');
  const text = readFileSync(file, 'utf8');
  if (!process.argv.includes('--check')) {
    const lock = JSON.parse(text);
    const { stubs } = missingStubs(lock);
    const entries = Object.entries({ ...lock.packages, ...stubs });
    lock.packages = Object.fromEntries(entries.sort(([a], [b]) => a.localeCompare(b, 'en')));
    for (const entry of Object.values(lock.packages)) if (/^https?:/.test(entry.resolved ?? '')) delete entry.resolved;
    writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
    console.log(`package-lock.json: ${Object.keys(stubs).length} entries for other platforms added`);
  }
  const problems = lockFileProblems(readFileSync(file, 'utf8'));
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length ? 1 : 0;
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) main();
