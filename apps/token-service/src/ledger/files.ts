import { readdirSync, renameSync } from 'node:fs';
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

/** For how long some of one list were alive at the same time as some of another. */
function overlapMs(some: readonly Life[], others: readonly Life[]): number {
  const both =
    ({ from, to }: Life) =>
    (other: Life) =>
      Math.max(0, Math.min(to, other.to) - Math.max(from, other.from));
  return some.flatMap((life) => others.map(both(life))).reduce((sum, ms) => sum + ms, 0);
}

export type LedgerWork = { [What in keyof Requests]: (given: Requests[What][0]) => Requests[What][1] };

/**
 * What the thread of a ledger does with its files. Every function blocks. `close` closes what is open.
 * @param onProgress is called while a function takes long
 */
export function ledgerWork(onProgress: () => void = () => undefined): { work: LedgerWork; close(): void } {
  let folder: LedgerFolder | undefined;
  let stream: LedgerStream | undefined;
  /** Those that were compared last. */
  let compared: LedgerFolder[] = [];
  /** Of them, those that are not whole. */
  let faulty = new Set<LedgerFolder>();
  /** Those that the database knows. */
  let known = new Set<LedgerFolder>();
  const work: LedgerWork = {
    open({ folder: where, key, ledger, stream: id, at }): Opened {
      stream?.close();
      folder = LedgerFolder.open(where, Buffer.from(key), () => ledger, at);
      folder.onRead = onProgress;
      stream = folder.begin(id);
      return { ledger: folder.identity.ledger, stream: id };
    },
    append: ({ entries }) => stream!.append(entries),
    state(state) {
      folder!.writeState({ stream: stream!.stream, ...stream!.place, ...state });
      return null;
    },
    compare({ marks, retainedSince, key, isAll }) {
      const own = folder!;
      own.mustBeThere();
      const base = path.dirname(own.folder);
      const beside = readdirSync(base).filter((name) => name !== path.basename(own.folder) && !name.startsWith('.'));
      const others = beside.flatMap((name) => other(path.join(base, name), Buffer.from(key)) ?? []);
      for (const one of others) one.onRead = onProgress;
      const marksOf = ({ identity }: LedgerFolder) => marks.filter((mark) => mark.ledger === identity.ledger);
      const isKnown = (one: LedgerFolder) => one === own || isAll || marksOf(one).length > 0;
      const compareOne = (one: LedgerFolder): LedgerComparison & { lives: readonly Life[] } => {
        const { faults, ...rest } = one.compare<LedgerEntry>(marksOf(one), retainedSince);
        const { isOriginal, identity } = one;
        const { ledger, isComplete } = identity;
        return {
          ...rest,
          ledger,
          folder: one.folder,
          isOwn: one === own,
          isKnown: isKnown(one),
          isOriginal,
          isComplete,
          faults: faults.map(({ code, message }) => ({ code, message })),
        };
      };
      const all = [own, ...others];
      const ledgers = all.map(compareOne);
      const lives = ledgers.filter((one) => one.isKnown).flatMap((one) => one.lives);
      const isCounted = (one: (typeof ledgers)[number]) => one.isKnown || overlapMs(one.lives, lives) <= OVERLAP_MS;
      compared = all.filter((_, i) => isCounted(ledgers[i]!));
      faulty = new Set(all.filter((_, i) => ledgers[i]!.faults.length > 0));
      known = new Set(all.filter(isKnown));
      return ledgers.filter(isCounted).map(({ lives: _, ...one }) => one);
    },
    adopt({ ledger, stream: id, at }) {
      const own = folder!;
      own.mustBeThere();
      const until = `until-${at.replaceAll(/\D/g, '')}`;
      for (const one of compared) {
        if (!faulty.has(one)) one.adopt();
        else if (one !== own && !known.has(one)) renameSync(one.folder, aside(one.folder, until));
        onProgress();
      }
      if (faulty.has(own)) {
        stream!.close();
        renameSync(own.folder, `${own.folder}.${until}`);
        folder = LedgerFolder.open(own.folder, own.key, () => ledger, at);
        folder.onRead = onProgress;
        stream = folder.begin(id);
      }
      return { ledger: folder!.identity.ledger, stream: stream!.stream };
    },
    prune: ({ before }) => folder!.prune(before, stream!.stream),
  };
  return { work, close: () => stream?.close() };
}

/** Where it is not read any more. */
const aside = (folder: string, until: string): string =>
  path.join(path.dirname(folder), `.${path.basename(folder)}.${until}`);

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
