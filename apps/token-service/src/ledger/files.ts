import { existsSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { compareFolders } from './beside.js';
import { LedgerFolder } from './folder.js';
import type { LedgerStream } from './stream.js';
import type { Opened, Requests } from './thread.js';

/** The mark of a stream is moved as much later than its state is written, at most. */
const MARK_LATE_MS = 60_000;

export type LedgerWork = { [What in keyof Requests]: (given: Requests[What][0]) => Requests[What][1] };

/**
 * What the thread of a ledger does with its files. Every function blocks. `close` closes what is open.
 * @param onProgress is called while a function takes long
 */
export function ledgerWork(onProgress: () => void = () => undefined): { work: LedgerWork; close(): void } {
  let folder: LedgerFolder | undefined;
  let stream: LedgerStream | undefined;
  /** Whether the disk has failed in the stream: nobody knows what of that can be read later. */
  let isDoubtful = false;
  let stated: Requests['state'][0] | undefined;
  let database = '';
  let prunedBefore = 0;
  /** Those that were compared last. */
  let compared: LedgerFolder[] = [];
  /** Those that are not whole, of all that were read then. */
  let faulty = new Set<LedgerFolder>();
  /** Those that the database knows. */
  let known = new Set<LedgerFolder>();
  const begin = ({ folder: where, key, database: named, ledger, stream: id, at }: Requests['open'][0]): Opened => {
    stream?.close();
    stream = undefined;
    database = named;
    folder = LedgerFolder.open(where, Buffer.from(key), () => ledger, at);
    folder.onRead = onProgress;
    stream = folder.begin(id);
    isDoubtful = false;
    [compared, faulty, known] = [[], new Set(), new Set()];
    prunedBefore = folder.prunedBefore();
    return { ledger: folder.identity.ledger, stream: id };
  };
  const work: LedgerWork = {
    open(given): Opened {
      const isSame = stream && folder!.folder === given.folder && database === given.database;
      return isSame && !isDoubtful && folder!.isThere()
        ? { ledger: folder!.identity.ledger, stream: stream!.stream }
        : begin(given);
    },
    append({ entries }) {
      try {
        // An open file can be that of a folder that was moved away since.
        folder!.mustBeThere();
        return stream!.append(entries);
      } catch (error) {
        isDoubtful = true;
        throw error;
      }
    },
    state(state) {
      stated = state;
      folder!.writeState({
        stream: stream!.stream,
        ...stream!.place,
        ...(prunedBefore > 0 && { prunedBefore }),
        ...state,
      });
      return null;
    },
    compare(given) {
      const own = folder!;
      own.mustBeThere();
      const found = compareFolders(own, given, onProgress);
      ({ compared, faulty, known } = found);
      return found.ledgers;
    },
    distrust({ ledger }) {
      for (const one of compared) if ((ledger ?? one.identity.ledger) === one.identity.ledger) one.distrust();
      return null;
    },
    adopt({ ledger, stream: id, at, isAll }) {
      const own = folder!;
      if (compared.length === 0) throw new Error(`${own.folder} has not been compared since it was opened`);
      const failures: string[] = [];
      const attempt = (one: () => void) => {
        try {
          one();
        } catch (error) {
          failures.push((error as Error).message);
        }
        onProgress();
      };
      for (const one of compared) {
        if (!isAll && one !== own && !known.has(one)) continue;
        if (!faulty.has(one)) attempt(() => one.adopt());
      }
      if (faulty.has(own))
        attempt(() => {
          replace(own, ledger, at);
          begin({ folder: own.folder, key: own.key.toString(), database, ledger, stream: id, at });
        });
      if (failures.length > 0) throw new Error(failures.join('; '));
      return { ledger: folder!.identity.ledger, stream: stream!.stream };
    },
    prune: ({ before }) =>
      folder!.prune(before - MARK_LATE_MS, stream!.stream, (lastAt) => {
        // The marks of what is removed are as much later. First: what is missing without this was cut.
        prunedBefore = Math.max(prunedBefore, lastAt + MARK_LATE_MS);
        work.state(stated!);
      }),
  };
  return { work, close: () => stream?.close() };
}

/** A folder beside that of a ledger; it is not read. */
const beside = (one: LedgerFolder, name: string): string => path.join(path.dirname(one.folder), `.${name}`);

/** Where a ledger is set aside: one place for each, so that of several processes one moves it there. */
const endedName = ({ folder, identity }: LedgerFolder): string =>
  `${path.basename(folder)}.from-${identity.begunAt.replaceAll(/\D/g, '')}`;

/** Where the same one was set aside before, a later number is used. @returns where it is */
function setAside(one: LedgerFolder, to: string): string {
  for (let number = 1; ; number++) {
    const place = number === 1 ? to : `${to}-${number}`;
    try {
      renameSync(one.folder, place);
      return place;
    } catch (error) {
      // Another process has just moved it there, or it came back.
      if (!existsSync(place) || !one.isThere()) throw error;
    }
  }
}

/** Puts a new ledger in the place of one that is not whole, unless another process has. Both are there, or as before. */
function replace(own: LedgerFolder, ledger: string, at: string): void {
  const next = LedgerFolder.open(beside(own, ledger), own.key, () => ledger, at);
  try {
    const ended = setAside(own, path.join(path.dirname(own.folder), endedName(own)));
    try {
      renameSync(next.folder, own.folder);
    } catch (error) {
      if (!existsSync(own.folder)) renameSync(ended, own.folder);
      throw error;
    }
  } catch (error) {
    rmSync(next.folder, { recursive: true, force: true });
    if (own.isThere()) throw error;
  }
}
