import { readdirSync } from 'node:fs';
import path from 'node:path';
import { parentPort } from 'node:worker_threads';
import type { LedgerEntry } from './entry.js';
import { LedgerFolder } from './folder.js';
import { LedgerFault } from './format.js';
import type { LedgerStream } from './stream.js';
import type { LedgerComparison, Opened, Request, Requests, Response } from './thread.js';

/** The thread of `LedgerThread`. */
const port = parentPort!;
let folder: LedgerFolder | undefined;
let stream: LedgerStream | undefined;
/** Those that were compared last. */
let compared: LedgerFolder[] = [];

const work: { [What in keyof Requests]: (given: Requests[What][0]) => Requests[What][1] } = {
  open({ folder: where, key, ledger, stream: id }): Opened {
    stream?.close();
    folder = LedgerFolder.open(where, Buffer.from(key), () => ledger);
    stream = folder.begin(id);
    return { ledger: folder.identity.ledger };
  },
  append: ({ entries }) => stream!.append(entries),
  state(state) {
    folder!.writeState({ stream: stream!.stream, ...stream!.place, ...state });
    return null;
  },
  compare({ marks, retainedSince, key, of: reading, isAll }) {
    const base = path.dirname(folder!.folder);
    const ledgers: LedgerComparison[] = [];
    compared = [];
    for (const name of readdirSync(base)) {
      const isOwn = name === path.basename(folder!.folder);
      const one = isOwn ? folder! : other(path.join(base, name), Buffer.from(key));
      const of = marks.filter((mark) => mark.ledger === one?.identity.ledger);
      if (!one || (!isOwn && !isAll && of.length === 0)) continue;
      compared.push(one);
      const { faults, ...rest } = one.compare<LedgerEntry>(of, retainedSince, reading);
      const { isOriginal, identity } = one;
      const { ledger, isComplete } = identity;
      ledgers.push({
        ...rest,
        ledger,
        folder: one.folder,
        isOwn,
        isOriginal,
        isComplete,
        faults: faults.map(({ code, message }) => ({ code, message })),
      });
    }
    return ledgers;
  },
  adopt() {
    for (const one of compared) one.adopt();
    return null;
  },
  prune: ({ before }) => folder!.prune(before, stream!.stream),
};

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

port.on('message', ({ id, what, given }: Request) => {
  port.postMessage(respond(id, () => work[what](given as never)));
});

function respond(id: number, attempt: () => unknown): Response {
  try {
    return { id, result: attempt() };
  } catch (error) {
    const { message } = error as Error;
    return { id, error: { message, ...(error instanceof LedgerFault && { fault: error.code }) } };
  }
}
