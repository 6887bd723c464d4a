import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Clock } from '@latchkey/runtime';
import type { LedgerEntry } from './entry.js';
import type { Comparison, Mark } from './folder.js';
import { LedgerFault, type LedgerFaultCode, type Place, type State } from './format.js';
import type { IgnoredLedger } from './store.js';

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
export interface LedgerComparison extends Omit<Comparison<LedgerEntry>, 'faults' | 'lives' | 'databases'> {
  /** Empty for one that cannot be read. */
  readonly ledger: string;
  readonly folder: string;
  /** The one that this process writes. */
  readonly isOwn: boolean;
  /**
   * The database has a mark of it. Otherwise it is of a server from which the database was put back to this one, or to which
   * it was moved since.
   */
  readonly isKnown: boolean;
  /**
   * It may be of this database or of a copy that was in use at the same time: nobody can tell. Its entries are not read, and it
   * is not adopted.
   */
  readonly isUncertain: boolean;
  /** Its id; of one that cannot be read, the name of its folder. */
  readonly name: string;
  /** When a stream of it was last alive, in milliseconds since 1970; 0: never. */
  readonly aliveTo: number;
  /** See `LedgerFolder.isOriginal`. */
  readonly isOriginal: boolean;
  /** See `Identity.isComplete`. */
  readonly isComplete: boolean;
  readonly faults: readonly { code: LedgerFaultCode; message: string }[];
}

/** What the thread is asked for, with its response. */
export interface Requests {
  /**
   * The ids are for a new ledger and for the stream; the time is ISO 8601. A stream of another database, or of another folder,
   * is not continued.
   */
  open: [{ folder: string; key: string; database: string; ledger: string; stream: string; at: string }, Opened];
  append: [{ entries: readonly LedgerEntry[] }, Place];
  state: [Omit<State, 'stream' | 'sequence' | 'mac'>, null];
  /** The own ledger, and those beside it of servers that the database was on. */
  compare: [
    {
      marks: readonly LedgerMark[];
      retainedSince: number;
      key: string;
      /** Ledgers that name only others are not read. */
      database: string;
      /** Those that are not looked at: uncertain ones, and those that are not whole. */
      ignored: readonly IgnoredLedger[];
      /** Those that have no mark count as those that have one. */
      isAll: boolean;
    },
    LedgerComparison[],
  ];
  /** Of those that were compared, this one, or each, counts as a copy until that is decided. */
  distrust: [{ ledger: string | null }, null];
  /**
   * What the ledgers that were compared lacked has been decided on: copies are originals from now on. In the place of the own
   * one, if it is not whole, a new one is begun, with these ids, and the old one is set aside; others that are not whole stay as
   * they are: an older backup may need what can be read in them. Without `isAll`, so do those that the database does not know.
   */
  adopt: [{ ledger: string; stream: string; at: string; isAll: boolean }, Opened];
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

/** What the thread posts while a request takes long: its disk responds. */
export const PROGRESS = 'progress';

/** A disk that has responded to nothing for so long hangs. */
const SILENCE_MAX_MS = 10_000;

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
  /** One that was given up and has not ended yet: it is blocked in a call of the file system. */
  #hanging: Worker | undefined;
  #next = 0;
  readonly #waiting = new Map<number, Waiting>();
  #cancel: () => void = () => undefined;

  constructor(private readonly clock: Pick<Clock, 'after'>) {}

  /** ThreadEnded also after ten seconds without a response or progress, and then until the disk responds again. */
  async ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    if (this.#hanging) throw new ThreadEnded('the disk of the ledger does not respond');
    this.#worker ??= this.#start();
    const id = this.#next++;
    const response = Promise.withResolvers<Requests[What][1]>();
    this.#waiting.set(id, response as unknown as Waiting);
    this.#worker.postMessage({ id, what, given } satisfies Request);
    if (this.#waiting.size === 1) this.#listen(this.#worker);
    return response.promise;
  }

  async stop(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(WORKER, { name: 'ledger' });
    worker.unref();
    worker.on('message', (message: Response | typeof PROGRESS) => {
      if (this.#worker !== worker) return;
      if (message !== PROGRESS) this.#respond(message);
      this.#listen(worker);
    });
    worker.on('error', (error) => this.#end(worker, error.message));
    worker.on('exit', () => {
      if (this.#hanging === worker) this.#hanging = undefined;
      this.#end(worker, 'the thread of the ledger has ended');
    });
    return worker;
  }

  #respond({ id, result, error }: Response): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (!error) waiting?.resolve(result as never);
    else waiting?.reject(error.fault ? new LedgerFault(error.fault, error.message) : new Error(error.message));
  }

  /** From now on, while somebody waits. */
  #listen(worker: Worker): void {
    this.#cancel();
    if (this.#waiting.size === 0) return;
    this.#cancel = this.clock.after(SILENCE_MAX_MS, () => {
      // It ends once that call returns. Until then another one would hang too.
      this.#hanging = worker;
      void worker.terminate();
      this.#end(worker, `the disk of the ledger has not responded for ${SILENCE_MAX_MS} ms`);
    });
  }

  #end(worker: Worker, reason: string): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    this.#cancel();
    for (const { reject } of this.#waiting.values()) reject(new ThreadEnded(reason));
    this.#waiting.clear();
  }
}
