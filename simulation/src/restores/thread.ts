import { appendFileSync, readdirSync, statSync, utimesSync } from 'node:fs';
import path from 'node:path';
import type { Asked, Requests } from '@latchkey/token-service/ledger';
import type { Machine } from '../machine.js';
import type { ShippedModules } from '../modules.js';
import type { Random } from '../random.js';
import { type Disk, SEGMENT } from './disk.js';

const QUICKEST_MS = 0.2;
/** After this, the shipped thread is replaced. */
const HANGS_MS = 10_000;

/** What the shipped `LedgerThread` does, in simulated time: one request after the other, until the process ends. */
export class SimulatedThread implements Asked {
  #work: ReturnType<ShippedModules['ledgerWork']>;
  #stream: string | undefined;
  #folder: string | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly modules: Pick<ShippedModules, 'ledgerWork' | 'ThreadEnded'>,
    private readonly machine: Machine,
    private readonly disk: Disk,
    private readonly random: Random,
  ) {
    this.#work = modules.ledgerWork();
    machine.onDeath(() => this.#end());
  }

  ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    const answered = this.#last.then(() => this.#ask(what, given));
    this.#last = answered.catch(() => undefined);
    return answered;
  }

  async stop(): Promise<void> {
    this.#end();
  }

  #ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    const ms = this.random.spread(QUICKEST_MS, this.disk.slowestMs);
    const isLate = ms > HANGS_MS;
    return new Promise((resolve, reject) => {
      this.machine.deliverAfter(Math.min(ms, HANGS_MS), () => {
        const isWrite = what !== 'compare' && what !== 'prune';
        if (isLate && this.random.chance(0.5)) {
          this.#replace();
          reject(new this.modules.ThreadEnded('the thread of the ledger has ended'));
          return;
        }
        if (isWrite && this.disk.isFailing) {
          reject(new Error('ENOSPC: no space left on device'));
          return;
        }
        try {
          const result = this.#work.work[what](structuredClone(given) as never);
          if (what === 'append') this.#date();
          if (what === 'open') {
            this.#stream = (result as Requests['open'][1]).stream;
            this.#folder = (given as Requests['open'][0]).folder;
          }
          if (isLate) {
            this.#replace();
            reject(new this.modules.ThreadEnded('the thread of the ledger has ended'));
          } else resolve(structuredClone(result) as Requests[What][1]);
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  /** Of a stream without a state, the file says when it was written: in simulated time too. */
  #date(): void {
    const first = path.join(this.#folder!, `${this.#stream}.000000`);
    if (statSync(first, { throwIfNoEntry: false }))
      utimesSync(first, this.machine.wallMs() / 1_000, this.machine.wallMs() / 1_000);
  }

  #replace(): void {
    this.#work.close();
    this.#work = this.modules.ledgerWork();
    this.#stream = undefined;
  }

  /** A kill can come in the midst of a write. */
  #end(): void {
    this.#work.close();
    if (this.#stream === undefined || !this.random.chance(0.3)) return;
    const stream = this.#stream;
    this.#stream = undefined;
    const isThere = statSync(this.#folder!, { throwIfNoEntry: false })?.isDirectory();
    const names = isThere ? readdirSync(this.#folder!) : [];
    const last = names
      .filter((name) => name.startsWith(stream) && SEGMENT.test(name))
      .sort()
      .at(-1);
    if (last !== undefined) appendFileSync(path.join(this.#folder!, last), '7 aBc {"e":"0198');
  }
}
