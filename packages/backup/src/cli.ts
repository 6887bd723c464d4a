import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ConfigError, versionIn } from '@latchkey/runtime';
import { Command, CommanderError } from 'commander';
import { type BackupOptions, backup } from './backup.js';
import { type Contents, readContents } from './content.js';
import { BackupError, reasonOf } from './errors.js';
import { newIdentity } from './keys.js';
import {
  ENVIRONMENT_OF_LOCKS,
  type LockOptions,
  lockOf,
  type UnlockOptions,
  unlockOf,
  withLockOptions,
  withUnlockOptions,
} from './options.js';
import { type Restored, type RestoreTarget, restore } from './restore.js';

/** What is backed up. */
export interface Source extends Pick<BackupOptions, 'databaseUrl' | 'secrets' | 'files'> {
  close(): Promise<void>;
}

/** What is restored into. */
export interface Target {
  /** Called once the archive has been read to its end. */
  open(): Promise<RestoreTarget>;
  /** Stores the secrets and files once the database is complete, and returns what to do next, line by line. */
  finish(restored: Restored): Promise<string[]>;
  close(): Promise<void>;
}

/** An installation: of `npm start`, or in containers. */
export interface Place {
  env: NodeJS.ProcessEnv;
  /** How the commands are called, for their help. */
  called: { backup: string; restore: string };
  /** The folder to which relative paths of options refer. */
  directory: string;
  /** The folder for backups when no other is named; created when it is missing. */
  backups: string;
  /** Meaning of `--into`; absent: there is no such option. */
  into?: string;
  source(): Promise<Source>;
  /** @param into the value of `--into` */
  target(into: string | undefined): Promise<Target>;
}

interface Common {
  json?: boolean;
}

const say = (line: string) => void process.stderr.write(`${line}\n`);

/** One result on standard output: a line, or JSON. */
function show(json: boolean | undefined, line: string, value: object): void {
  process.stdout.write(`${json ? JSON.stringify(value) : line}\n`);
}

/** The command that writes, verifies and prepares backups. */
export function backupProgram(place: Place): Command {
  const at = (file: string) => path.resolve(place.directory, file);
  const program = command(place.called.backup).description(
    'Back up the database, the secrets, the routes and the scopes into one encrypted file.',
  );
  withLockOptions(
    program
      .command('create', { isDefault: true })
      .description('write a backup, read it back and compare it; services can go on (this is the default)'),
  )
    .option('--out <file or folder>', `where to write it (default: a new file in ${place.backups})`)
    .option('--without-secrets', 'leave the secrets out; without them no token of the backup is valid')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', ENVIRONMENT_OF_LOCKS)
    .action(async (options: Common & LockOptions & { out?: string; withoutSecrets?: boolean }) => {
      const lock = await lockOf(options, place.env, at);
      const file = fileFor(options.out ? at(options.out) : place.backups, new Date());
      const source = await place.source();
      try {
        const { databaseUrl, files } = source;
        const secrets = options.withoutSecrets ? {} : source.secrets;
        const result = await backup({ databaseUrl, secrets, files, file, lock, progress: say });
        show(options.json, `${file}: ${summaryOf(result)}, ${result.bytes} bytes, verified`, {
          file,
          bytes: result.bytes,
          ...jsonOf(result),
        });
      } finally {
        await source.close();
      }
    });
  withUnlockOptions(program.command('verify <file>').description('read a backup to its end and compare every digest'))
    .option('--json', 'print the manifest as JSON; it names secrets and contains none')
    .addHelpText('after', ENVIRONMENT_OF_LOCKS)
    .action(async (name: string, options: Common & UnlockOptions) => {
      const file = at(name);
      const contents = await readContents(file, await unlockOf(options, place.env, at));
      show(options.json, `${file}: ${summaryOf(contents)}, verified`, { file, ...jsonOf(contents) });
    });
  program
    .command('keygen <file>')
    .description('make an age identity for decrypting, and print its recipient; keep the file elsewhere')
    .action(async (name: string) => {
      const { text, recipient } = await newIdentity();
      try {
        writeFileSync(at(name), text, { flag: 'wx', mode: 0o600 });
      } catch (error) {
        throw new BackupError(`${at(name)} cannot be written: ${reasonOf(error)}`);
      }
      process.stdout.write(`${recipient}\n`);
    });
  return program;
}

/** The command that restores a backup. */
export function restoreProgram(place: Place): Command {
  const at = (file: string) => path.resolve(place.directory, file);
  const program = withUnlockOptions(
    command(place.called.restore)
      .description('Restore a backup into an empty database. It is read to its end before anything is written.')
      .argument('<file>', 'the backup'),
  )
    .option('--json', 'print the result as JSON')
    .addHelpText('after', ENVIRONMENT_OF_LOCKS)
    .action(async (name: string, options: Common & UnlockOptions & { into?: string }) => {
      const file = at(name);
      const target = await place.target(options.into && at(options.into));
      try {
        const unlock = await unlockOf(options, place.env, at);
        const restored = await restore({ file, unlock, target: () => target.open(), progress: say });
        const next = await target.finish(restored);
        const { chain } = restored;
        show(options.json, `${file}: ${summaryOf(restored)}, restored`, { ...jsonOf(restored), chain, next });
        if (!options.json) next.forEach(say);
        if (chain.ok) return;
        const { seq, reason } = chain.firstBroken!;
        throw new BackupError(
          `everything is restored, but the audit chain was broken when it was backed up, at ${seq ?? 'an unknown place'}: ${reason}`,
        );
      } finally {
        await target.close();
      }
    });
  if (place.into) program.requiredOption('--into <folder>', place.into);
  return program;
}

/** Runs one of the two programs, and sets the exit code: 0 done, 1 failed, 2 wrong arguments. */
export async function runProgram(name: 'backup' | 'restore', program: Command, args: readonly string[]): Promise<void> {
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
    else {
      const isExpected = error instanceof BackupError || error instanceof ConfigError;
      say(`${name} failed: ${isExpected ? error.message : ((error as Error).stack ?? error)}`);
      process.exitCode = 1;
    }
  }
}

const command = (name: string): Command =>
  new Command(name).version(versionIn(new URL('../package.json', import.meta.url))).exitOverride();

/** The file itself, or a new one in a folder, named by the time. */
function fileFor(place: string, now: Date): string {
  const isFolder = existsSync(place) ? statSync(place).isDirectory() : !path.extname(place);
  if (!isFolder) return place;
  try {
    mkdirSync(place, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new BackupError(`${place} cannot be created: ${reasonOf(error)}; choose another folder with --out`);
  }
  return path.join(place, `latchkey-${now.toISOString().slice(0, 19).replaceAll(':', '-')}Z.tar.gz.age`);
}

function summaryOf({ manifest, digests }: Contents): string {
  const rows = Object.values(digests.tables).reduce((sum, table) => sum + table.rows, 0);
  const secrets = manifest.secrets.length === 0 ? 'no secrets' : `${manifest.secrets.length} secrets`;
  return `${rows} rows of ${manifest.tables.length} tables and ${secrets} of ${manifest.madeAt}`;
}

/** Without the digests of secrets: a password could be guessed from its own. */
const jsonOf = ({ manifest, digests: { tables, files } }: Contents): object => ({
  manifest,
  digests: { tables, files },
});
