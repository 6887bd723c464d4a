import { readFileSync } from 'node:fs';

/**
 * The version in a package.json.
 * @param manifest its location: `new URL('../package.json', import.meta.url)`
 */
export function versionIn(manifest: URL): string {
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  return version;
}
