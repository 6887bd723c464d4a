/**
 * configuration.md: every environment variable of every service, from the `settings` of each app's src/config.ts, and of
 * `npm start`, from tools/src/settings.ts.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, workspaces } from '../lib/repository.mjs';
import { table } from './table.mjs';

/** @typedef {{name: string, setting: Setting, apps: string[]}} Row */
/** @typedef {{description: string, default?: string, secret?: boolean, schema: {safeParse(value: unknown): {success: boolean}}}} Setting */

export async function generate() {
  /** Keyed by the whole row, because services can differ in the meaning of a name. @type {Map<string, Row>} */
  const settings = new Map();
  for (const { dir } of workspaces().filter((workspace) => workspace.dir.startsWith('apps/'))) {
    const file = path.join(root, dir, 'dist', 'config.js');
    if (!existsSync(file) || !existsSync(path.join(root, dir, 'src', 'config.ts'))) continue;
    const module = await import(pathToFileURL(file).href);
    for (const [name, setting] of Object.entries(/** @type {Record<string, Setting>} */ (module.settings ?? {}))) {
      const key = [name, setting.description, absent(setting)].join('\n');
      const known = settings.get(key);
      if (known) known.apps.push(path.basename(dir));
      else settings.set(key, { name, setting, apps: [path.basename(dir)] });
    }
  }
  const launcher = await import(pathToFileURL(path.join(root, 'tools', 'dist', 'settings.js')).href);
  const sorted = (/** @type {Iterable<[string, unknown]>} */ entries) =>
    [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
  const rows = /** @type {[string, Row][]} */ (sorted(settings)).map(([, { name, setting, apps }]) => [
    `\`${name}\``,
    setting.description,
    absent(setting),
    apps.join(', '),
  ]);
  const startRows = /** @type {[string, Setting][]} */ (sorted(Object.entries(launcher.settings))).map(
    ([name, setting]) => [`\`${name}\``, setting.description, absent(setting)],
  );
  return {
    'configuration.md': `# Configuration

Each service reads its settings from the environment at start; when some are invalid it names all of them and exits. For
any \`NAME\`, \`NAME_FILE\` can name a file that contains the value, as container secrets do. Secrets are never printed.

${table(['Variable', 'Meaning', 'When absent', 'Read by'], rows)}
## npm start

It reads the following, sets what each service needs, generates missing secrets, and passes on every other variable of
the table above. Port 0 means any free port.

${table(['Variable', 'Meaning', 'When absent'], startRows)}`,
  };
}

/** @param {Setting} setting */
function absent({ default: value, secret, schema }) {
  if (value !== undefined && !secret) return value === '' ? 'empty' : `\`${value}\``;
  if (value !== undefined) return 'a default that is not shown';
  return schema.safeParse(undefined).success ? 'not set' : `required${secret ? ' (secret)' : ''}`;
}
