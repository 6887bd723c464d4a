import { readFileSync } from 'node:fs';
import { Gauge, type Registry } from 'prom-client';

/**
 * The version in a package.json.
 * @param manifest its location: `new URL('../package.json', import.meta.url)`
 */
export function versionIn(manifest: URL): string {
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  return version;
}

/**
 * The commit that the running program was built from, as an image states it (`LATCHKEY_REVISION`); `unknown` without.
 */
export const revision = (env: NodeJS.ProcessEnv = process.env): string => env['LATCHKEY_REVISION'] || 'unknown';

/** `latchkey_build_info`, always 1: which build this is, by its labels. Of several processes it remains 1. */
export function registerBuildInfo(registry: Registry, version: string): void {
  const gauge = new Gauge({
    name: 'latchkey_build_info',
    help: 'Always 1; its labels say which build is running',
    labelNames: ['version', 'revision', 'node'],
    registers: [registry],
    aggregator: 'max',
  });
  gauge.set({ version, revision: revision(), node: process.versions.node }, 1);
}
