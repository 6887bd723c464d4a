/**
 * .env.example, the variables of docker-compose.yml: its own, and every setting of the services that it does not fix, from
 * the `settings` of each app's src/config.ts.
 */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../lib/repository.mjs';

/** @typedef {{description: string, default?: string, secret?: boolean}} Setting */

/** The services that have settings. */
export const services = ['token-service', 'gateway', 'jobs'];

/** Settings whose value follows from docker-compose.yml, by service; no variable changes them. */
export const fixed = {
  'token-service': [
    'HOST',
    'API_PORT',
    'OPS_PORT',
    'RPC_PORT',
    'LEDGER_DIR',
    'RPC_TLS_CERT_FILE',
    'RPC_TLS_KEY_FILE',
    'API_TLS_CERT_FILE',
    'API_TLS_KEY_FILE',
  ],
  gateway: [
    'HOST',
    'OPS_HOST',
    'OPS_PORT',
    'AUTHZ_PORT',
    'RPC_ADDRESS',
    'RPC_CA_FILE',
    'API_URL',
    'API_CA_FILE',
    'CONSOLE_DIR',
  ],
  jobs: ['HOST', 'OPS_PORT', 'RPC_ADDRESS', 'RPC_CA_FILE'],
};

/** Settings of the gateway that the entrance has in its place. The last is replaced by the profile tls. */
export const atTheEntrance = ['PORT', 'TRUSTED_PROXIES', 'TLS_CERTIFICATE_FILE', 'TLS_KEY_FILE'];

/** Settings that the one-shot service `secrets` derives from others. */
export const derived = ['JOBS_SEALING_PUBLIC_KEY', 'RETENTION_DATABASE_URL'];

/** No container needs it: `secrets` makes the three that replace it. */
export const deprecated = ['RPC_SECRET'];

/** Variables of docker-compose.yml itself: name, default, meaning. @type {[string, string, string][]} */
export const composeVariables = [
  [
    'COMPOSE_PROFILES',
    '',
    'demo: the demo API and its routes in place of ./config; tls: TLS at the entrance; both: demo,tls',
  ],
  [
    'COMPOSE_PROJECT_NAME',
    'latchkey',
    'Name of the containers and volumes; another one for a second installation on this machine',
  ],
  ['REVISION', 'unknown', 'Of a build: the commit, in the labels of the image and in latchkey_build_info'],
  ['PORT', '8080', 'Published port'],
  ['BIND_ADDRESS', '127.0.0.1', 'Address that it is published on'],
  ['TLS_PORT', '8443', 'Published port of the profile tls'],
  ['TLS_BIND_ADDRESS', '0.0.0.0', 'Address that it is published on'],
  [
    'TRUSTED_PROXIES',
    '',
    'Proxies in front of the entrance, addresses or CIDRs separated by commas: their X-Forwarded-For, -Proto and -Host are believed',
  ],
  ['CONFIG_DIR', './config', 'Folder with routes.yaml, scopes.yaml and certificates/'],
  ['BACKUP_DIR', './backups', 'Folder for backups'],
  ['BACKUP_RECIPIENTS', '', 'age public keys that backups are encrypted to'],
  [
    'DATABASE_URL',
    '',
    'Your own PostgreSQL, as the owner of the schema; the services get addresses for their own roles, derived from it',
  ],
  ['GATEWAY_REPLICAS', '1', 'Containers of the gateway, up to 32'],
  ['TOKEN_SERVICE_REPLICAS', '1', 'Containers of the token-service'],
  ['JOBS_REPLICAS', '1', 'Containers of jobs'],
  ['POSTGRES_REPLICAS', '1', '0 with your own PostgreSQL: the bundled one is not started'],
  ['REDIS_URL', '', 'Your own Redis'],
  ['REDIS_REPLICAS', '1', '0 with your own Redis: the bundled one is not started'],
  ['TOKEN_SERVICE_MEMORY', '1g', 'Limit of memory'],
  ['GATEWAY_MEMORY', '1g', 'Limit of memory; about 150 MB for each of GATEWAY_PROCESSES, and 100 MB'],
  ['JOBS_MEMORY', '512m', 'Limit of memory'],
  ['POSTGRES_MEMORY', '2g', 'Limit of memory'],
  ['REDIS_MEMORY', '1g', 'Limit of memory'],
  ['ENTRANCE_MEMORY', '1g', 'Limit of memory'],
  ['DEMO_UPSTREAM', 'http://demo-upstream:4010', "Address of the demo's routes"],
];

/** Defaults of docker-compose.yml that differ from the services' own. @type {Record<string, string>} */
const defaults = {
  ADMIN_EMAIL: 'admin@latchkey.local',
  CANARY_API_URL: 'https://token-service:8090',
  GATEWAY_CONFIG: '/config/routes.yaml',
  GATEWAY_PROCESSES: '2',
  PUBLIC_URL: 'http://127.0.0.1:$' + '{PORT}',
  SCOPES_FILE: '/config/scopes.yaml',
};

/** The settings of one service. @param {string} service @returns {Promise<Record<string, Setting>>} */
export async function settingsOf(service) {
  const module = await import(pathToFileURL(path.join(root, 'apps', service, 'dist', 'config.js')).href);
  return module.settings;
}

/** Whether docker-compose.yml leaves a setting of a service to the operator. @param {string} service @param {string} name */
export const isOpen = (service, name) =>
  ![...(fixed[/** @type {keyof typeof fixed} */ (service)] ?? []), ...derived, ...deprecated].includes(name) &&
  !(service === 'gateway' && atTheEntrance.includes(name));

/** @param {string} text */
const comment = (text) => {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1) ?? '';
    if (last && last.length + word.length > 115) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines.map((line) => `# ${line}\n`).join('');
};

export async function generate() {
  const own = new Set(composeVariables.map(([name]) => name));
  /** @type {Map<string, {setting: Setting, services: string[]}>} */
  const found = new Map();
  for (const service of services)
    for (const [name, setting] of Object.entries(await settingsOf(service))) {
      if (own.has(name) || !isOpen(service, name)) continue;
      const known = found.get(name);
      if (known) known.services.push(service);
      else found.set(name, { setting, services: [service] });
    }
  const sorted = [...found].sort(([a], [b]) => (a < b ? -1 : 1));
  return `# Settings of docker-compose.yml. Copy this file to .env and remove the # before what you change; then
# docker compose up --wait. Generated by npm run docs: change the code instead. See docs/compose.md.
# A value that contains $ stands in single quotes, one of several lines in double quotes.

# --- containers ---

${composeVariables.map(([name, value, meaning]) => `${comment(meaning)}#${name}=${value}\n`).join('\n')}
# --- services: docs/generated/configuration.md ---
# Secrets that are made at the first start need no value here. Each secret that is not made can also be a file of ./config:
# NAME_FILE=/config/<file> in place of NAME.

${sorted
  .map(
    ([name, { setting, services: users }]) =>
      `${comment(`${setting.description} (${users.join(', ')})`)}#${name}=${setting.secret ? '' : (defaults[name] ?? setting.default ?? '')}\n`,
  )
  .join('\n')}`;
}
