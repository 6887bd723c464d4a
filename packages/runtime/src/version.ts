import { readFileSync } from 'node:fs';

/**
 * The version that a package.json states.
 * @param manifest where it lies: `new URL('../package.json', import.meta.url)`
 */
export function versionIn(manifest: URL): string {
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  return version;
}
