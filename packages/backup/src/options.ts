import { readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { BackupError, reasonOf } from './errors.js';
import { identitiesIn, type Lock, type Unlock } from './keys.js';
import { askHidden } from './prompt.js';

export interface LockOptions {
  recipient: string[];
  passphraseFile?: string;
}
export interface UnlockOptions {
  identityFile?: string;
  passphraseFile?: string;
}

export const ENVIRONMENT_OF_LOCKS = `
Without these options the environment is read: BACKUP_RECIPIENTS (separated by commas), BACKUP_PASSPHRASE_FILE,
BACKUP_IDENTITY_FILE. At a terminal, a passphrase is then asked for. It is never an argument: others could see it.`;

export function withLockOptions(command: Command): Command {
  const collect = (recipient: string, before: string[]) => [...before, recipient];
  const recipient = new Option('--recipient <age1…>', 'encrypt to the holder of an age identity; can be repeated')
    .argParser(collect)
    .default([], 'none');
  return command.addOption(recipient).option('--passphrase-file <file>', 'encrypt with the passphrase in this file');
}

export function withUnlockOptions(command: Command): Command {
  return command
    .option('--identity-file <file>', 'decrypt with the age identities in this file')
    .option('--passphrase-file <file>', 'decrypt with the passphrase in this file');
}

/**
 * @param at turns a path of an option into an absolute one
 * @throws BackupError when there is no way to encrypt, or two
 */
export async function lockOf(
  options: LockOptions,
  env: NodeJS.ProcessEnv,
  at: (file: string) => string,
): Promise<Lock> {
  const { recipient, passphraseFile } = options;
  if (recipient.length > 0 && passphraseFile)
    throw new BackupError('an archive is encrypted to recipients or with a passphrase, not both; remove one option');
  if (recipient.length > 0) return { recipients: recipient };
  if (passphraseFile) return { passphrase: secretIn(at(passphraseFile), '--passphrase-file') };
  const [recipients, file] = [env['BACKUP_RECIPIENTS'], env['BACKUP_PASSPHRASE_FILE']];
  if (recipients && file)
    throw new BackupError('BACKUP_RECIPIENTS and BACKUP_PASSPHRASE_FILE are both set; remove one');
  if (recipients)
    return {
      recipients: recipients
        .split(',')
        .map((each) => each.trim())
        .filter(Boolean),
    };
  if (file) return { passphrase: secretIn(file, 'BACKUP_PASSPHRASE_FILE') };
  if (!process.stdin.isTTY)
    throw new BackupError(
      'nothing says how to encrypt the backup: give --recipient age1… or --passphrase-file <file>, or set BACKUP_RECIPIENTS or BACKUP_PASSPHRASE_FILE',
    );
  const passphrase = await askHidden('Passphrase for this backup: ');
  if ((await askHidden('The same again: ')) !== passphrase) throw new BackupError('the two passphrases differ; repeat');
  return { passphrase };
}

/** The same for decrypting. */
export async function unlockOf(
  options: UnlockOptions,
  env: NodeJS.ProcessEnv,
  at: (file: string) => string,
): Promise<Unlock> {
  const { identityFile, passphraseFile } = options;
  if (identityFile && passphraseFile)
    throw new BackupError('--identity-file and --passphrase-file are both given; remove one');
  if (identityFile) return identitiesOf(at(identityFile), '--identity-file');
  if (passphraseFile) return { passphrase: secretIn(at(passphraseFile), '--passphrase-file') };
  const [identities, file] = [env['BACKUP_IDENTITY_FILE'], env['BACKUP_PASSPHRASE_FILE']];
  if (identities && file)
    throw new BackupError('BACKUP_IDENTITY_FILE and BACKUP_PASSPHRASE_FILE are both set; remove one');
  if (identities) return identitiesOf(identities, 'BACKUP_IDENTITY_FILE');
  if (file) return { passphrase: secretIn(file, 'BACKUP_PASSPHRASE_FILE') };
  if (!process.stdin.isTTY)
    throw new BackupError(
      'nothing says how to decrypt the backup: give --identity-file <file> or --passphrase-file <file>, or set BACKUP_IDENTITY_FILE or BACKUP_PASSPHRASE_FILE',
    );
  return { passphrase: await askHidden('Passphrase of the backup: ') };
}

const identitiesOf = (file: string, from: string): Unlock => ({ identities: identitiesIn(textIn(file, from), file) });

/** One trailing line break is dropped. */
const secretIn = (file: string, from: string): string => textIn(file, from).replace(/\r?\n$/, '');

function textIn(file: string, from: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new BackupError(`${from}: ${file} cannot be read: ${reasonOf(error)}`);
  }
}
