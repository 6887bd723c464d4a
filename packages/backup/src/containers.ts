import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { loadConfig, type Settings, settingSchema } from '@latchkey/runtime';
import { z } from 'zod';
import type { Place } from './cli.js';
import { BackupError, reasonOf } from './errors.js';
import { migrateBy } from './migrate-by.js';

const settings = {
  DATABASE_URL: {
    description: 'PostgreSQL as the owner of the schema',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:'),
  },
  SECRETS_DIR: { description: 'Folder with the volumes of the secrets', default: '/secrets', schema: z.string() },
  BACKUP_DIR: { description: 'Folder for backups', default: '/backups', schema: z.string() },
  GATEWAY_CONFIG: { description: 'Routes file', default: 'infra/gateway.yaml', schema: z.string() },
  SCOPES_FILE: { description: 'Scopes file', default: 'infra/scopes.yaml', schema: z.string() },
} satisfies Settings;

/** The volumes whose secrets are backed up; those of databases are made anew where a backup is restored. */
const VOLUMES = ['token-service', 'gateway', 'jobs'];
/** Addresses with passwords of databases, what is computed from other secrets, and certificates, which are made anew. */
const DERIVED = new Set([
  'redis_url',
  'database_url',
  'retention_database_url',
  'ca',
  'tls_certificate',
  'tls_key',
  'jobs_sealing_public_key',
]);

/**
 * The installation of docker-compose.yml, from within a container of it.
 * @param root the repository in the image
 */
export function containers(root: string, env: NodeJS.ProcessEnv): Place {
  const config = () => loadConfig(settings, env);
  const backups = env['BACKUP_DIR'] || settings.BACKUP_DIR.default;
  return {
    env,
    called: { backup: 'docker compose run --rm backup', restore: 'docker compose run --rm restore' },
    directory: backups,
    backups,
    async source() {
      const { DATABASE_URL: databaseUrl, SECRETS_DIR, GATEWAY_CONFIG, SCOPES_FILE } = config();
      const files = {
        'gateway.yaml': readWhole('GATEWAY_CONFIG', path.resolve(root, GATEWAY_CONFIG)),
        // The default one can be absent.
        ...((env['SCOPES_FILE'] || existsSync(path.resolve(root, SCOPES_FILE))) && {
          'scopes.yaml': readWhole('SCOPES_FILE', path.resolve(root, SCOPES_FILE)),
        }),
      };
      return { databaseUrl, secrets: secretsIn(SECRETS_DIR), files, close: async () => undefined };
    },
    async target() {
      const { DATABASE_URL: databaseUrl, SECRETS_DIR } = config();
      const migrate = migrateBy(path.join(root, 'apps/token-service/dist/migrate.js'), databaseUrl);
      return {
        open: async () => ({ databaseUrl, migrate }),
        async finish({ secrets, files, manifest }) {
          storeSecrets(root, SECRETS_DIR, secrets);
          // The steps of a secret that was being replaced were those of other values.
          rmSync(path.join(SECRETS_DIR, 'administrator/rotation'), { recursive: true, force: true });
          const folder = path.join(backups, `restored-${manifest.id.slice(0, 8)}`);
          mkdirSync(folder, { recursive: true });
          for (const [name, data] of Object.entries(files)) writeFileSync(path.join(folder, name), data);
          return [
            ...(manifest.secrets.length === 0 ? ['The backup has no secrets: put yours into the volumes first.'] : []),
            `Its routes and scopes are in ${folder}: compare them with config/routes.yaml and config/scopes.yaml.`,
            'Then: docker compose up --wait',
          ];
        },
        close: async () => undefined,
      };
    },
  };
}

function secretsIn(dir: string): Record<string, string> {
  const secrets: Record<string, string> = {};
  for (const volume of VOLUMES) {
    const folder = path.join(dir, volume);
    for (const file of existsSync(folder) ? readdirSync(folder) : []) {
      if (DERIVED.has(file) || file.endsWith('.new')) continue;
      secrets[file.toUpperCase()] = readWhole('SECRETS_DIR', path.join(folder, file)).toString('utf8');
    }
  }
  if (!secrets['TOKEN_PEPPERS'])
    throw new BackupError(
      `${dir} has no token-service/token_peppers, without which no token of the backup is valid; mount the volumes of the secrets, or set SECRETS_DIR`,
    );
  return secrets;
}

/** By the program that makes secrets: it takes given ones from its environment, and derives the others. */
function storeSecrets(root: string, dir: string, secrets: Readonly<Record<string, string>>): void {
  const program = path.join(root, 'infra/docker/make-secrets.mjs');
  const env = { PATH: process.env['PATH'], SECRETS_DIR: dir, ...secrets };
  try {
    execFileSync(process.execPath, [program], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    throw new BackupError(`the database is restored, but storing the secrets in ${dir} failed: ${reasonOf(error)}`);
  }
}

function readWhole(setting: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new BackupError(`${setting}: ${file} cannot be read: ${reasonOf(error)}`);
  }
}
