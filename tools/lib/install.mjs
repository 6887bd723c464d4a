import { existsSync } from 'node:fs';
import path from 'node:path';
import { run } from './processes.mjs';
import { readJson, root, workspaces } from './repository.mjs';

/**
 * How `node_modules` differs from the lock file, or `null` when it does not. Optional packages can be absent (they are for
 * other platforms), but not of another version.
 * @param {{packages: Record<string, any>}} lock package-lock.json
 * @param {{packages: Record<string, any>} | null} installed node_modules/.package-lock.json, which npm writes
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
 * How the workspaces' package.json files differ from the lock file, one message each.
 * @param {{packages: Record<string, any>}} lock
 * @returns {string[]}
 */
export function manifestsAheadOfLock(lock) {
  const all = [{ dir: '', manifest: readJson(path.join(root, 'package.json')) }, ...workspaces()];
  return all.flatMap(({ dir, manifest }) => {
    const known = lock.packages[dir] ?? {};
    const changed = ['dependencies', 'devDependencies', 'optionalDependencies', 'peerDependencies'].filter((kind) => {
      const wanted = Object.entries(manifest[kind] ?? {});
      const locked = known[kind] ?? {};
      return wanted.length !== Object.keys(locked).length || wanted.some(([name, range]) => locked[name] !== range);
    });
    return changed.map(
      (kind) => `${path.posix.join(dir, 'package.json')}: ${kind} differ from package-lock.json; run npm install`,
    );
  });
}

/**
 * Installs the packages of the lock file if node_modules differs from it; prints why, and npm's output.
 * @returns {Promise<boolean>} whether anything was installed
 * @throws Error when npm fails; npm has then printed the reason
 */
export async function installWhatIsMissing() {
  const note = path.join(root, 'node_modules', '.package-lock.json');
  const why = whyInstall(readJson(path.join(root, 'package-lock.json')), existsSync(note) ? readJson(note) : null);
  if (!why) return false;
  console.log(`installing packages (npm ci): ${why}`);
  const startedAt = Date.now();
  // Hides engine warnings: the installed npm can be older or newer than the one the packages were tested with.
  const { code } = await run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { show: true });
  if (code !== 0) throw new Error('npm ci failed, see above; nothing was started');
  console.log(`packages installed in ${((Date.now() - startedAt) / 1000).toFixed(0)} s`);
  return true;
}
