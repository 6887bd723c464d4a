import { copyFileSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ConfigError, loadConfig, type Settings, settingSchema } from '@latchkey/runtime';
import { z } from 'zod';
import { type LedgerEntry, LedgerFault, LedgerFolder, ledgerKey } from './ledger/index.js';

/** `latchkey ledger`: checks, copies and imports ledgers, for operators. See docs/ledger.md. */
export const settings = {
  LEDGER_DIR: { description: 'Folder of the ledgers', schema: z.string('is required').min(1) },
  LEDGER_KEY: { description: 'Authenticates them', secret: true, schema: settingSchema.secret },
} satisfies Settings;

export const HELP = `The ledger keeps what was revoked outside the database and every backup.

  ledger verify            reads every ledger in LEDGER_DIR and says whether it is what was written
  ledger export <folder>   copies them to a folder that does not exist yet, also while Latchkey runs, and verifies the copy
  ledger import <folder>   adds exported ledgers to LEDGER_DIR; the next start of the token-service applies what is missing
      --complete           the copy was made after the old installation had stopped for good, so nothing was revoked
                           since; without it an administrator decides about that in the console

LEDGER_DIR and LEDGER_KEY are read from the environment.
`;

interface Checked {
  folder: string;
  ledger: string;
  streams: number;
  entries: number;
  reachesTo: string | null;
  problems: string[];
}

/** It was not whole, and a new one was begun in its place: what can be read of it still counts. */
const isSetAside = ({ folder }: Checked): boolean => /\.from-\d+(-\d+)?$/.test(folder);

const foldersIn = (dir: string): string[] =>
  readdirSync(dir, { withFileTypes: true })
    .filter((one) => one.isDirectory() && !one.name.startsWith('.') && existsSync(path.join(dir, one.name, 'ledger')))
    .map(({ name }) => path.join(dir, name));

function check(folder: string, key: Buffer): Checked {
  try {
    const found = LedgerFolder.existing(folder, key)!;
    const { entries, faults, reachesTo } = found.compare<LedgerEntry>([], 0);
    return {
      folder,
      ledger: found.identity.ledger,
      streams: found.streams().size,
      entries: entries.length,
      reachesTo,
      problems: faults.map(({ message }) => message),
    };
  } catch (error) {
    if (!(error instanceof LedgerFault)) throw error;
    return { folder, ledger: '', streams: 0, entries: 0, reachesTo: null, problems: [error.message] };
  }
}

/** How far streams reach comes first, so that it is not further than what is copied after it. */
function copyFolder(from: string, to: string): void {
  mkdirSync(to, { recursive: true, mode: 0o700 });
  const names = readdirSync(from).filter((name) => !name.endsWith('.new'));
  const rank = (name: string) => (name.endsWith('.state') ? 0 : 1);
  for (const name of names.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))) {
    const target = path.join(to, name);
    // A file that is there already is only ever continued.
    if (existsSync(target) && rank(name) === 1 && statSync(target).size >= statSync(path.join(from, name)).size)
      continue;
    copyFileSync(path.join(from, name), target);
  }
}

function mustHaveLedgers(dir: string): string[] {
  const folders = existsSync(dir) ? foldersIn(dir) : [];
  if (folders.length === 0) throw new CommandError(`${dir} contains no ledger`);
  return folders;
}

class CommandError extends Error {}

/** Those that were set aside are only described. */
function mustBeWhole(checked: readonly Checked[]): void {
  const problems = checked.filter((one) => !isSetAside(one)).flatMap((one) => one.problems);
  if (problems.length > 0)
    throw new CommandError(`not what was written:\n${problems.map((one) => `  ${one}`).join('\n')}`);
}

const print = (line: string): void => void process.stdout.write(`${line}\n`);

function describe({ folder, ledger, streams, entries, reachesTo, problems }: Checked): string {
  const last = reachesTo ?? 'nothing was written yet';
  const state = problems.length > 0 ? '; not whole' : '';
  return `${folder}: ledger ${ledger}, ${entries} entries in ${streams} streams, alive until ${last}${state}`;
}

/** @throws CommandError when a ledger is not what was written */
function verify(dir: string, key: Buffer): void {
  const checked = mustHaveLedgers(dir).map((one) => check(one, key));
  for (const one of checked) if (one.ledger) print(describe(one));
  mustBeWhole(checked);
}

function exportTo(folder: string, dir: string, key: Buffer): void {
  if (existsSync(folder)) throw new CommandError(`${folder} exists already: choose another folder`);
  for (const one of mustHaveLedgers(dir)) copyFolder(one, path.join(folder, path.basename(one)));
  verify(folder, key);
}

function importFrom(folder: string, dir: string, key: Buffer, isComplete: boolean): void {
  const given = mustHaveLedgers(folder).map((one) => check(one, key));
  // One that is damaged keeps no other from being imported, and what can be read of it counts; but then nothing is complete.
  const isWhole = given.every((one) => one.problems.length === 0 || isSetAside(one));
  for (const { folder: from, ledger } of given) {
    if (ledger === '') continue;
    const to = path.join(dir, `imported-${ledger}`);
    copyFolder(from, to);
    const imported = LedgerFolder.existing(to, key)!;
    const { isDistrusted } = imported;
    imported.declareImported(isComplete && isWhole && !isDistrusted);
    print(describe(check(to, key)));
    if (isDistrusted)
      print(`${to}: its disk failed when PostgreSQL started again. An administrator decides about what it may lack.`);
  }
  mustBeWhole(given);
  print('Start the token-service (again) now: it applies what the database lacks before it answers.');
}

function run(args: readonly string[]): void {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { complete: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false } },
    allowPositionals: true,
  });
  const [command, folder, ...more] = positionals;
  if (values.help || command === undefined) {
    print(HELP.trimEnd());
    return;
  }
  if (!['verify', 'export', 'import'].includes(command)) throw new CommandError(`no command ${command}; see --help`);
  if (more.length > 0 || (command === 'verify') !== (folder === undefined))
    throw new CommandError(`ledger ${command} takes ${command === 'verify' ? 'no folder' : 'one folder'}; see --help`);
  const { LEDGER_DIR: dir, LEDGER_KEY: secret } = loadConfig(settings);
  const key = Buffer.from(ledgerKey(secret));
  if (folder === undefined) verify(dir, key);
  else if (command === 'export') exportTo(folder, dir, key);
  else importFrom(folder, dir, key, values.complete);
}

try {
  run(process.argv.slice(2));
} catch (error) {
  const known = error instanceof CommandError || error instanceof ConfigError || error instanceof LedgerFault;
  const isUsage = (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS');
  if (!known && !isUsage) throw error;
  process.stderr.write(`ledger: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
