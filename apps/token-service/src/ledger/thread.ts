import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { LedgerEntry } from './entry.js';
import type { Comparison, Mark } from './folder.js';
import { LedgerFault, type LedgerFaultCode, type Place, type State } from './format.js';

/** From `src/` and `dist/` alike: a thread runs built files. */
const WORKER = path.join(import.meta.dirname, '../../dist/ledger/worker.js');

export interface Opened {
  readonly ledger: string;
  /** The stream that is written from now on. */
  readonly stream: string;
}

/** A mark with its ledger. */
export interface LedgerMark extends Mark {
  readonly ledger: string;
}

/** What one ledger contains behind the marks. */
export interface LedgerComparison extends Omit<Comparison<LedgerEntry>, 'faults' | 'lives'> {
  readonly ledger: string;
  readonly folder: string;
  /** The one that this process writes. */
  readonly isOwn: boolean;
  /**
   * The database has a mark of it. Otherwise it is of a server from which the database was put back to this one, or to which
   * it was moved since.
   */
  readonly isKnown: boolean;
  /** See `LedgerFolder.isOriginal`. */
  readonly isOriginal: boolean;
  /** See `Identity.isComplete`. */
  readonly isComplete: boolean;
  readonly faults: readonly { code: LedgerFaultCode; message: string }[];
}

/** What the thread is asked for, with its response. */
export interface Requests {
  /** The ids are for a new ledger and for the stream; the time is ISO 8601. */
  open: [{ folder: string; key: string; ledger: string; stream: string; at: string }, Opened];
  append: [{ entries: readonly LedgerEntry[] }, Place];
  state: [Omit<State, 'stream' | 'sequence' | 'mac'>, null];
  /** The own ledger, and those beside it of servers that the database was on. */
  compare: [
    {
      marks: readonly LedgerMark[];
      retainedSince: number;
      key: string;
      /** Those that have no mark count as those that have one. */
      isAll: boolean;
    },
    LedgerComparison[],
  ];
  /**
   * What the ledgers that were compared lacked has been decided on: copies are originals from now on. In the place of the own
   * one, if it is not whole, a new one is begun, with these ids, and the old one is set aside.
   */
  adopt: [{ ledger: string; stream: string; at: string }, Opened];
  prune: [{ before: number }, number];
}

/** Answers requests, one after the other. */
export interface Asked {
  /** @throws ThreadEnded; LedgerFault, or an error with the message of the file system's */
  ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]>;
  stop(): Promise<void>;
}

export interface Request {
  readonly id: number;
  readonly what: keyof Requests;
  readonly given: unknown;
}

export interface Response {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly fault?: LedgerFaultCode };
}

const TIMEOUT_MS = 10_000;
const COMPARE_TIMEOUT_MS = 120_000;

/** The thread has ended, and with it its stream. */
export class ThreadEnded extends Error {
  override name = 'ThreadEnded';
}

interface Waiting {
  resolve(result: never): void;
  reject(error: Error): void;
}

/**
 * The thread that reads and writes a ledger. The pool of threads in which passwords are hashed is not used, nor does the
 * event loop wait for a disk.
 */
export class LedgerThread implements Asked {
  #worker: Worker | undefined;
  #next = 0;
  readonly #waiting = new Map<number, Waiting>();

  /** ThreadEnded also after 10 seconds, or 2 minutes for a comparison. */
  ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const id = this.#next++;
    const response = Promise.withResolvers<Requests[What][1]>();
    this.#waiting.set(id, response as unknown as Waiting);
    worker.postMessage({ id, what, given } satisfies Request);
    // A disk that hangs: the thread is of no use any more.
    const late = setTimeout(() => void worker.terminate(), what === 'compare' ? COMPARE_TIMEOUT_MS : TIMEOUT_MS);
    late.unref();
    return response.promise.finally(() => clearTimeout(late));
  }

  async stop(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(WORKER, { name: 'ledger' });
    worker.unref();
    worker.on('message', ({ id, result, error }: Response) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (!error) waiting?.resolve(result as never);
      else waiting?.reject(error.fault ? new LedgerFault(error.fault, error.message) : new Error(error.message));
    });
    const ended = (reason: string) => {
      const error = new ThreadEnded(reason);
      if (this.#worker === worker) this.#worker = undefined;
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    };
    worker.on('error', (error) => ended(error.message));
    worker.on('exit', () => ended('the thread of the ledger has ended'));
    return worker;
  }
}
