import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { LedgerEntry } from './entry.js';
import { LedgerFolder, type Life } from './folder.js';
import { LedgerFault } from './format.js';
import type { LedgerStream } from './stream.js';
import type { LedgerComparison, Opened, Requests } from './thread.js';

/**
 * Ledgers under one key that were alive together for longer are of different databases, of which one is a copy of the other.
 * Servers between which one database was moved hardly are.
 */
const OVERLAP_MS = 60_000;

/** The mark of a stream is moved as much later than its state is written, at most. */
const MARK_LATE_MS = 60_000;

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
  let prunedBefore = 0;
  /** Those that were compared last. */
  let compared: LedgerFolder[] = [];
  /** Those that are not whole, of all that were read then. */
  let faulty = new Set<LedgerFolder>();
  /** Those that the database knows. */
  let known = new Set<LedgerFolder>();
  const begin = ({ folder: where, key, ledger, stream: id, at }: Requests['open'][0]): Opened => {
    stream?.close();
    stream = undefined;
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
      const isOpen = stream && !isDoubtful && folder!.folder === given.folder && folder!.isThere();
      return isOpen ? { ledger: folder!.identity.ledger, stream: stream!.stream } : begin(given);
    },
    append({ entries }) {
      try {
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
    compare({ marks, retainedSince, key, database, isAll }) {
      const own = folder!;
      own.mustBeThere();
      const base = path.dirname(own.folder);
      const names = readdirSync(base).filter((name) => name !== path.basename(own.folder) && !name.startsWith('.'));
      const others = names.flatMap((name) => other(path.join(base, name), Buffer.from(key)) ?? []);
      for (const one of others) one.onRead = onProgress;
      const marksOf = ({ identity }: LedgerFolder) => marks.filter((mark) => mark.ledger === identity.ledger);
      const compareOne = (one: LedgerFolder): LedgerComparison & { lives: readonly Life[]; isOther: boolean } => {
        const { faults, databases, ...rest } = one.compare<LedgerEntry>(marksOf(one), retainedSince);
        const { isOriginal, identity } = one;
        const isOther = databases.length > 0 && !databases.includes(database);
        const { ledger, isComplete } = identity;
        return {
          ...rest,
          ledger,
          folder: one.folder,
          isOwn: one === own,
          isKnown: one === own || marksOf(one).length > 0 || (isAll && !isOther),
          isOther,
          isOriginal,
          isComplete,
          faults: faults.map(({ code, message }) => ({ code, message })),
        };
      };
      const all = [own, ...others];
      const ledgers = all.map(compareOne);
      const lives = ledgers.filter((one) => one.isKnown).flatMap((one) => one.lives);
      const isMoved = (one: (typeof ledgers)[number]) => !one.isOther && overlapMs(one.lives, lives) <= OVERLAP_MS;
      const isCounted = (one: (typeof ledgers)[number]) => one.isKnown || isMoved(one);
      compared = all.filter((_, i) => isCounted(ledgers[i]!));
      faulty = new Set(all.filter((_, i) => ledgers[i]!.faults.length > 0));
      known = new Set(all.filter((_, i) => ledgers[i]!.isKnown));
      return ledgers.filter(isCounted).map(({ lives: _, isOther: __, ...one }) => one);
    },
    adopt({ ledger, stream: id, at }) {
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
        if (!faulty.has(one)) attempt(() => one.adopt());
        else if (one !== own && !known.has(one)) attempt(() => renameSync(one.folder, beside(one, endedName(one))));
      }
      if (faulty.has(own))
        attempt(() => {
          replace(own, ledger, at);
          begin({ folder: own.folder, key: own.key.toString(), ledger, stream: id, at });
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

/** Puts a new ledger in the place of one that is not whole, unless another process has. Both are there, or as before. */
function replace(own: LedgerFolder, ledger: string, at: string): void {
  const next = LedgerFolder.open(beside(own, ledger), own.key, () => ledger, at);
  const ended = path.join(path.dirname(own.folder), endedName(own));
  try {
    renameSync(own.folder, ended);
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

/** A ledger beside the own one: of the server that the database came from. */
function other(where: string, key: Buffer): LedgerFolder | null {
  try {
    return LedgerFolder.existing(where, key);
  } catch (error) {
    // Another installation's, under another key; if it is the one that is missed, the marks say so.
    if (error instanceof LedgerFault) return null;
    throw error;
  }
}
