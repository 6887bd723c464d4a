import type { RestoreFault } from '../restores/faults.js';
import type { RestoreMutant } from './mutant.js';

const moves: readonly RestoreFault[] = ['kill', 'stop', 'restart', 'putBack', 'dump', 'promote'];

/** Rules of how a process follows the database into its ledger. */
export const following: readonly RestoreMutant[] = [
  {
    name: 'ledgers that are not kept any more are missed at each start',
    patches: [['ledger/follower.ts', 'this.#isMissed = !(await this.#deps.store.forget());', '']],
    faults: ['unconfigured', 'kill'],
  },
  {
    name: 'an answer does not wait for the ledger',
    patches: [['ledger/follower.ts', 'await Promise.race([this.#next, late.promise])', 'await Promise.resolve()']],
    faults: ['putBack', 'kill'],
    isShared: true,
    seed: 444,
  },
  {
    name: 'an answer waits for a round that had begun before',
    patches: [
      [
        'ledger/follower.ts',
        `(this.#round ?? Promise.resolve()).then(() => {
      this.#next = undefined;
      return this.refresh();
    })`,
        '(this.#round ?? this.refresh()).then(() => { this.#next = undefined; })',
      ],
    ],
    faults: ['putBack'],
    isShared: true,
    seed: 6,
  },
  {
    name: 'a mark moves in a history that was not compared',
    patches: [
      ['ledger/follower.ts', 'this.#compared !== this.#history || ledger === undefined', 'ledger === undefined'],
    ],
    faults: moves,
    seed: 63,
  },
  {
    name: 'the cursor moves past open transactions',
    patches: [
      [
        'ledger/follower.ts',
        'this.#cursor = xmin;',
        'this.#cursor = String(events.reduce((last, { xid }) => BigInt(xid) >= last ? BigInt(xid) + 1n : last, BigInt(this.#cursor)));',
      ],
    ],
    faults: ['putBack', 'kill'],
    seed: 300,
  },
  {
    name: 'what the disk did not get is forgotten',
    patches: [['ledger/follower.ts', 'this.#behind ??= { history, ledger: this.#own?.lastLedger ?? null };', '']],
    faults: ['fullAtEnd', 'putBack'],
    isShared: true,
    seed: 10,
  },
  {
    name: 'what the disk did not get is known to the database alone',
    patches: [['ledger/follower.ts', 'if (this.#gap) await this.#distrust(this.#own, this.#gap);', '']],
    faults: ['fullAtEnd', 'putBack', 'kill'],
    isShared: true,
    seed: 97,
  },
  {
    name: 'events of long transactions are not followed',
    patches: [['ledger/follower.ts', 'this.#from = new Date(at.getTime() - LATE_MS);', 'this.#from = at;']],
    faults: ['putBack', 'kill'],
    isShared: true,
    seed: 18,
  },
  {
    name: 'a decision leaves uncertain ledgers as they were',
    patches: [
      ['ledger/follower.ts', 'if (this.#uncertain.length > 0) await this.#deps.store.ignore(this.#uncertain);', ''],
    ],
    faults: ['copied', 'kill', 'restart', 'together'],
    isShared: true,
    seed: 22,
  },
  {
    name: 'marks are removed before they are compared with',
    patches: [['ledger/follower.ts', 'if (alive.peers && nowMs', 'if (nowMs']],
    faults: ['months'],
    isShared: true,
  },
  {
    name: 'a gap ends with no decision',
    patches: [
      [
        'ledger/follower.ts',
        `      if (!own.isWhole) return;
      this.#gap = null;
`,
        `      if (!own.isWhole) return;
`,
      ],
    ],
    faults: ['fullAtEnd', 'putBack', 'restart'],
    isShared: true,
    seed: 4,
  },
  {
    name: 'a folder that failed is not opened again',
    patches: [
      [
        'ledger/own-ledger.ts',
        `      // Its folder may be another one by now: it is opened again.
      this.#ledger = undefined;
`,
        '',
      ],
    ],
    faults: ['exchange', 'putBack', 'kill', 'restart'],
    isShared: true,
    seed: 3,
  },
];
