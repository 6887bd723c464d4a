/**
 * The commands behind `npm run backup` and `npm run restore`, for the home of `npm start`:
 * `node tools/dist/backup.js backup|restore …`.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import {
  BackupError,
  backupProgram,
  migrateBy,
  type Place,
  type Restored,
  restoreProgram,
  runProgram,
  type Source,
  type Target,
} from '@latchkey/backup';
import { claimFolder, FolderInUse, type LocalServer, startPostgres } from '@latchkey/local-stack';
import { secretFiles, writePrivate } from './secrets.js';
import { type LauncherSettings, readSettings } from './settings.js';
import { claimHome, restoringMark } from './stack.js';

/** Without one of these a restored database would be of no use, or services would not trust each other. */
const optionalSecrets: ReadonlySet<string> = new Set(['BOARD_PASSWORD', 'ADMIN_PASSWORD', 'LEDGER_KEY']);
/** Secrets of the first token, which `npm start` shows. */
const firstTokenFiles = { FIRST_TOKEN_HEADER: 'first-token.header', FIRST_TOKEN_PATH: 'first-token.path' };
const filesOfSecrets: Readonly<Record<string, string>> = { ...secretFiles, ...firstTokenFiles };

/**
 * The installation of `npm start` in one home.
 * @param root the repository
 * @param directory the folder that the caller is in
 */
export function home(root: string, directory: string, env: NodeJS.ProcessEnv): Place {
  return {
    env,
    called: { backup: 'npm run backup --', restore: 'npm run restore --' },
    directory,
    backups: path.join(root, 'backups'),
    into: 'a new folder, which becomes the LATCHKEY_HOME of what is restored',
    source: () => sourceIn(root, env),
    target: async (into) => targetIn(root, env, into as string),
  };
}

async function sourceIn(root: string, env: NodeJS.ProcessEnv): Promise<Source> {
  const settings = readSettings(root, env);
  if (!existsSync(settings.home))
    throw new BackupError(`${settings.home} does not exist; LATCHKEY_HOME names the folder of npm start`);
  const secrets = secretsIn(settings.home, env);
  const files = {
    'gateway.yaml': readWhole('GATEWAY_CONFIG', settings.gatewayConfig),
    ...(hasScopes(root, env) && { 'scopes.yaml': readWhole('SCOPES_FILE', scopesFile(root, env)) }),
  };
  const { databaseUrl, close } = settings.databaseUrl
    ? { databaseUrl: settings.databaseUrl, close: async () => undefined }
    : await database(settings);
  return { databaseUrl, secrets, files, close };
}

/** The PostgreSQL of a home: the one that runs, else started for this command. */
async function database({ home: dir }: LauncherSettings): Promise<{ databaseUrl: string; close(): Promise<void> }> {
  let claim: ReturnType<typeof claimFolder>;
  try {
    claim = claimFolder(dir);
  } catch (error) {
    if (!(error instanceof FolderInUse)) throw error;
    const ready = path.join(dir, 'ready.json');
    if (!existsSync(ready))
      throw new BackupError(
        `Latchkey in ${dir} (process ${error.pid}) is starting or stopping; repeat when it is ready`,
      );
    const { databaseUrl } = JSON.parse(readFileSync(ready, 'utf8')) as { databaseUrl: string };
    return { databaseUrl, close: async () => undefined };
  }
  try {
    const folder = path.join(dir, 'postgres');
    if (!existsSync(folder))
      throw new BackupError(`${dir} has no database; npm start makes one, and LATCHKEY_HOME names another folder`);
    const server = await startPostgres({ dir: folder });
    const close = async () => {
      await server.stop();
      claim.release();
    };
    return { databaseUrl: server.url, close };
  } catch (error) {
    claim.release();
    throw error;
  }
}

function secretsIn(dir: string, env: NodeJS.ProcessEnv): Record<string, string> {
  const secrets: Record<string, string> = {};
  for (const [name, fileName] of Object.entries(filesOfSecrets)) {
    const file = path.join(dir, 'secrets', fileName);
    const value = (name in secretFiles && env[name]) || (existsSync(file) ? readFileSync(file, 'utf8') : undefined);
    if (value !== undefined) secrets[name] = value;
    else if (name in secretFiles && !optionalSecrets.has(name))
      throw new BackupError(
        `${name} is neither in the environment nor in ${file}; set it as for npm start, or give --without-secrets`,
      );
  }
  return secrets;
}

function targetIn(root: string, env: NodeJS.ProcessEnv, into: string): Target {
  if (existsSync(into) && readdirSync(into).length > 0)
    throw new BackupError(
      `${into} is not empty; a restore overwrites nothing: name a new folder with --into, and stop Latchkey before you start it from there`,
    );
  const settings = readSettings(root, env);
  const file = (name: string) => path.join(into, name);
  let claim: ReturnType<typeof claimHome> | undefined;
  let server: LocalServer | undefined;
  return {
    async open() {
      claim = claimHome(into);
      writeFileSync(file(restoringMark), '');
      if (!settings.databaseUrl) {
        mkdirSync(file('postgres'));
        server = await startPostgres({ dir: file('postgres'), log: (line) => process.stderr.write(`${line}\n`) });
      }
      const databaseUrl = server?.url ?? (settings.databaseUrl as string);
      const migrate = migrateBy(path.join(root, 'apps/token-service/dist/migrate.js'), databaseUrl);
      const remedy = `remove the folder ${into}${server ? '' : ' and what is in the database of DATABASE_URL'}, and repeat`;
      return { databaseUrl, migrate, remedy };
    },
    async finish(restored) {
      storeSecrets(file('secrets'), restored.secrets);
      const variables = storeFiles(root, env, settings, into, restored);
      writeFileSync(file('settled'), `${new Date().toISOString()}\n`);
      rmSync(file(restoringMark));
      const hasNoSecrets = restored.manifest.secrets.length === 0;
      return [
        ...(hasNoSecrets ? ['The backup has no secrets: set yours in the environment, TOKEN_PEPPERS first.'] : []),
        `Then: ${variables.join(' ')} npm start`,
      ];
    },
    async close() {
      await server?.stop();
      claim?.release();
    },
  };
}

function storeSecrets(dir: string, secrets: Readonly<Record<string, string>>): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  for (const [name, value] of Object.entries(secrets)) {
    const fileName = filesOfSecrets[name];
    if (fileName) writePrivate(path.join(dir, fileName), value);
    else
      process.stderr.write(`the backup has a secret ${name}, which this version does not know; it is not restored\n`);
  }
}

/** Stores the routes and scopes that differ from those in use, and returns the settings of the next start. */
function storeFiles(
  root: string,
  env: NodeJS.ProcessEnv,
  settings: LauncherSettings,
  into: string,
  { files }: Restored,
): string[] {
  const variables = [`LATCHKEY_HOME=${into}`];
  const inUse = {
    'gateway.yaml': { setting: 'GATEWAY_CONFIG', file: settings.gatewayConfig },
    'scopes.yaml': { setting: 'SCOPES_FILE', file: scopesFile(root, env) },
  };
  for (const [name, { setting, file }] of Object.entries(inUse)) {
    const data = files[name];
    if (!data || (existsSync(file) && readFileSync(file).equals(data))) continue;
    writeFileSync(path.join(into, name), data);
    variables.push(`${setting}=${path.join(into, name)}`);
  }
  return variables;
}

const scopesFile = (root: string, env: NodeJS.ProcessEnv): string =>
  path.resolve(root, env['SCOPES_FILE'] || 'infra/scopes.yaml');

/** The default one can be absent. */
const hasScopes = (root: string, env: NodeJS.ProcessEnv): boolean =>
  Boolean(env['SCOPES_FILE']) || existsSync(scopesFile(root, env));

function readWhole(setting: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new BackupError(`${setting}: ${file} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

const [which, ...args] = process.argv.slice(2);
if (which === 'backup' || which === 'restore') {
  const root = path.resolve(import.meta.dirname, '..', '..');
  // npm changes to the repository, and says where it was called.
  const place = home(root, process.env['INIT_CWD'] ?? process.cwd(), process.env);
  await runProgram(which, which === 'restore' ? restoreProgram(place) : backupProgram(place), args);
}
