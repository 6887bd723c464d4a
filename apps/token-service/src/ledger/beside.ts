import { lstatSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import type { LedgerEntry } from './entry.js';
import { LedgerFolder, type Life } from './folder.js';
import { LedgerFault } from './format.js';
import type { LedgerComparison, Requests } from './thread.js';

/**
 * Ledgers under one key that were alive together for longer are of different databases, of which one is a copy of the other.
 * Servers between which one database was moved hardly are.
 */
const OVERLAP_MS = 60_000;

/** How the folders of ledgers are named: a server, then a database; or by an import. */
const FOLDER_NAME = /^(\d{10,}|imported)-/;
const PLAIN_NAME = /^\d{10,}-[^.]+$/;

export interface ComparedFolders {
  readonly ledgers: LedgerComparison[];
  /** Those that are of this database. */
  readonly compared: LedgerFolder[];
  /** Those that are not whole, of all that were read. */
  readonly faulty: Set<LedgerFolder>;
  /** Those that the database knows. */
  readonly known: Set<LedgerFolder>;
}

/**
 * Compares the own ledger and those beside it, but not what is surely another database's.
 * @param onRead is called after each file that was read
 */
export function compareFolders(
  own: LedgerFolder,
  { marks, retainedSince, key, database, ignored, isAll }: Requests['compare'][0],
  onRead: () => void,
): ComparedFolders {
  const found = foldersBeside(own).flatMap((where) => other(where, Buffer.from(key)) ?? []);
  const isIgnored = ({ name, aliveTo }: Pick<LedgerComparison, 'name' | 'aliveTo'>) =>
    ignored.some((one) => one.name === name && aliveTo <= one.until);
  const folders = [own, ...found.filter((one) => one instanceof LedgerFolder)];
  const unreadable = found.filter((one): one is LedgerComparison => !(one instanceof LedgerFolder));
  const ledgers = unreadable.filter((one) => !isIgnored(one));
  const all = folders.map((folder) => {
    folder.onRead = onRead;
    const its = marks.filter((mark) => mark.ledger === folder.identity.ledger);
    const { faults, lives, databases, ...rest } = folder.compare<LedgerEntry>(its, retainedSince, database);
    const isOther = databases.length > 0 && !databases.includes(database);
    const isKnown = folder === own || its.length > 0 || (isAll && !isOther);
    return { folder, rest, faults: faults.map(plain), lives, databases, isOther, isKnown };
  });
  const lives = all.filter((one) => one.isKnown).flatMap((one) => one.lives);
  const compared: LedgerFolder[] = [];
  for (const { folder, rest, faults, lives: its, databases, isOther, isKnown } of all) {
    const { identity, isOriginal } = folder;
    const { ledger, isComplete } = identity;
    const aliveTo = Math.max(0, ...its.map(({ to }) => to));
    const isDecided = isIgnored({ name: ledger, aliveTo });
    const isEnded = folder !== own && isKnown && isDecided && faults.length > 0;
    if (isEnded || (!isKnown && (isOther || isDecided))) continue;
    // What was imported was meant to be read.
    const sharedMs = isKnown || identity.inode === '' ? 0 : overlapMs(its, lives);
    const isDamaged = faults.length > 0 && databases.length === 0 && !isKnown;
    const isUncertain = sharedMs > OVERLAP_MS || isDamaged;
    if (!isUncertain) compared.push(folder);
    const is = { isOwn: folder === own, isKnown, isUncertain, isOriginal, isComplete };
    ledgers.push({
      ...rest,
      ...is,
      ledger,
      name: ledger,
      aliveTo,
      folder: folder.folder,
      entries: isUncertain ? [] : rest.entries,
      faults: sharedMs > OVERLAP_MS ? [...faults, usedMeanwhile(sharedMs)] : faults,
    });
  }
  const foldersOf = (some: typeof all) => new Set(some.map(({ folder }) => folder));
  return {
    ledgers,
    compared,
    faulty: foldersOf(all.filter(({ faults }) => faults.length > 0)),
    known: foldersOf(all.filter(({ isKnown }) => isKnown)),
  };
}

/** A name that begins with a dot is that of a ledger that is being begun, or of one that an earlier version set aside. */
function foldersBeside(own: LedgerFolder): string[] {
  const base = path.dirname(own.folder);
  return readdirSync(base, { withFileTypes: true }).flatMap((entry) => {
    // What has such a name and is no folder has taken the place of one.
    const isFolder = entry.isDirectory() || entry.isSymbolicLink() || PLAIN_NAME.test(entry.name);
    const isOwn = entry.name === path.basename(own.folder);
    return isFolder && !isOwn && !entry.name.startsWith('.') ? [path.join(base, entry.name)] : [];
  });
}

const plain = ({ code, message }: LedgerFault) => ({ code, message });

const usedMeanwhile = (ms: number) => ({
  code: 'uncertain' as const,
  message: `this is the ledger of another server, on which this database or a copy of it was used for ${Math.round(ms / 1_000)} s at the same time as here. What was revoked there is not applied here. Give a copy of a database a LEDGER_DIR of its own`,
});

/** A ledger beside the own one, of a server that the database came from; null: there is none of this installation. */
function other(where: string, key: Buffer): LedgerFolder | LedgerComparison | null {
  try {
    return LedgerFolder.existing(where, key);
  } catch (error) {
    if (!(error instanceof LedgerFault)) throw error;
    const name = path.basename(where);
    // Another installation's, under another key; if it is the one that is missed, the marks say so.
    if (error.code !== 'unreadable' || !FOLDER_NAME.test(name)) return null;
    const is = { isOwn: false, isKnown: false, isUncertain: true, isOriginal: true, isComplete: false };
    return {
      ledger: '',
      name,
      aliveTo: changedMs(where),
      folder: where,
      ...is,
      entries: [],
      faults: [plain(error)],
      reachesTo: null,
      isStated: false,
      peers: [],
    };
  }
}

/** When a folder that cannot be read was changed; 0 where not even that can be known. */
function changedMs(where: string): number {
  const stat = [statSync, lstatSync].flatMap((of) => {
    try {
      return [of(where)];
    } catch {
      return [];
    }
  });
  return Math.floor(stat[0]?.mtimeMs ?? 0);
}

/** For how long any of one list was alive at the same time as any of another. */
function overlapMs(some: readonly Life[], others: readonly Life[]): number {
  const shared = some
    .flatMap((one) => others.map((other) => ({ from: Math.max(one.from, other.from), to: Math.min(one.to, other.to) })))
    .sort((a, b) => a.from - b.from);
  let [sum, counted] = [0, Number.NEGATIVE_INFINITY];
  for (const { from, to } of shared) {
    sum += Math.max(0, to - Math.max(from, counted));
    counted = Math.max(counted, to);
  }
  return sum;
}
