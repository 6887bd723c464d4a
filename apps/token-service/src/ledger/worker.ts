import { parentPort } from 'node:worker_threads';
import { ledgerWork } from './files.js';
import { LedgerFault } from './format.js';
import { PROGRESS, type Request, type Response } from './thread.js';

/** The thread of `LedgerThread`. */
const port = parentPort!;
const { work } = ledgerWork(() => port.postMessage(PROGRESS));

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
