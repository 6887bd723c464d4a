import { existsSync } from 'node:fs';
import path from 'node:path';
import { run } from './processes.mjs';
import { readJson, root, workspaces } from './repository.mjs';

/**
 * Why `node_modules` does not hold what the lock file says, or `null` when it does. Optional packages may be absent
 * (they are for other platforms), but not of another version.
 * @param {{packages: Record<string, any>}} lock package-lock.json
 * @param {{packages: Record<string, any>} | null} installed node_modules/.package-lock.json, npm's note of what it did
 * @returns {string | null}
 */
export function whyInstall(lock, installed) {
  if (!installed) return 'nothing is installed yet';
  for (const [place, entry] of Object.entries(lock.packages)) {
    if (!place.includes('node_modules/')) continue;
    const present = installed.packages[place];
    if (!present && (entry.optional || entry.devOptional)) continue;
    if (!present) return `${place.slice('node_modules/'.length)} is not installed`;
    if (present.version !== entry.version) {
      return `${place.slice('node_modules/'.length)} is ${present.version} and should be ${entry.version}`;
    }
  }
  return null;
}

/**
 * What the workspaces' package.json files ask for and the lock file does not know of, as sentences.
 * @param {{packages: Record<string, any>}} lock
 * @returns {string[]}
 */
export function manifestsAheadOfLock(lock) {
  const all = [{ dir: '', manifest: readJson(path.join(root, 'package.json')) }, ...workspaces()];
  return all.flatMap(({ dir, manifest }) => {
    const known = lock.packages[dir] ?? {};
    const changed = ['dependencies', 'devDependencies', 'optionalDependencies', 'peerDependencies'].filter((kind) => {
      const asked = Object.entries(manifest[kind] ?? {});
      const locked = known[kind] ?? {};
      return asked.length !== Object.keys(locked).length || asked.some(([name, range]) => locked[name] !== range);
    });
    return changed.map(
      (kind) => `${path.posix.join(dir, 'package.json')}: ${kind} differ from package-lock.json; run npm install`,
    );
  });
}

/**
 * Installs what the lock file names when node_modules does not hold it already, telling why and showing npm's progress.
 * @returns {Promise<boolean>} whether anything was installed
 * @throws when npm fails; npm has then printed the reason
 */
export async function installWhatIsMissing() {
  const note = path.join(root, 'node_modules', '.package-lock.json');
  const why = whyInstall(readJson(path.join(root, 'package-lock.json')), existsSync(note) ? readJson(note) : null);
  if (!why) return false;
  console.log(`installing packages (npm ci): ${why}`);
  const startedAt = Date.now();
  // The host's npm may be older or newer than what the packages were tried with; its engine warnings are no news.
  const { code } = await run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { show: true });
  if (code !== 0) throw new Error('npm ci failed, see above; nothing was started');
  console.log(`packages installed in ${((Date.now() - startedAt) / 1000).toFixed(0)} s`);
  return true;
}
