/** configuration.md: every environment variable of every service, from the `settings` of each app's src/config.ts. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, workspaces } from '../lib/repository.mjs';
import { table } from './table.mjs';

/** @typedef {{description: string, default?: string, secret?: boolean, schema: {safeParse(value: unknown): {success: boolean}}}} Setting */

export async function generate() {
  /** @type {Map<string, {setting: Setting, apps: string[]}>} */
  const settings = new Map();
  for (const { dir } of workspaces().filter((workspace) => workspace.dir.startsWith('apps/'))) {
    const file = path.join(root, dir, 'dist', 'config.js');
    if (!existsSync(file) || !existsSync(path.join(root, dir, 'src', 'config.ts'))) continue;
    const module = await import(pathToFileURL(file).href);
    for (const [name, setting] of Object.entries(/** @type {Record<string, Setting>} */ (module.settings ?? {}))) {
      const known = settings.get(name);
      if (known) known.apps.push(path.basename(dir));
      else settings.set(name, { setting, apps: [path.basename(dir)] });
    }
  }
  const rows = [...settings]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { setting, apps }]) => [`\`${name}\``, setting.description, absent(setting), apps.join(', ')]);
  return {
    'configuration.md': `# Configuration

Each service reads its settings from the environment at start and refuses to start while one is wrong, naming all that
are. For any \`NAME\`, \`NAME_FILE\` may name a file that holds the value, as container secrets do. Secrets are never
printed.

${table(['Variable', 'Meaning', 'When absent', 'Read by'], rows)}`,
  };
}

/** @param {Setting} setting */
function absent({ default: value, secret, schema }) {
  if (value !== undefined && !secret) return value === '' ? 'empty' : `\`${value}\``;
  if (value !== undefined) return 'a default that is not shown';
  return schema.safeParse(undefined).success ? 'not set' : `required${secret ? ' (secret)' : ''}`;
}
