import type { Mutant } from './mutant.js';
import { DeadRowDeletedBlindly, LeasesReadBeforeCommit, NonceNotCompared, RowLengthOverwritten } from './mutated.js';

/** Rules of leases: when they begin and end, and which of them a confirmation waits for. */
export const leases: readonly Mutant[] = [
  {
    name: 'leases read before the commit',
    seed: 10,
    Pool: LeasesReadBeforeCommit,
  },
  {
    name: 'invalidations read before the lease commits',
    seed: 105,
    faults: ['absence'],
    Store: NonceNotCompared,
    steps: 200,
    patches: [
      [
        'invalidation/leases.ts',
        'const taken = await here.takeLease(take);',
        "const result = await log.since(here, cursor, caller.firstParty, '18446744073709551614');\n      const taken = await here.takeLease(take);",
      ],
      [
        'invalidation/leases.ts',
        'return { taken, result: await log.since(here, known, caller.firstParty, taken.renewal) };',
        'return { taken, result: known === cursor ? result : { ...result, reset: true } };',
      ],
    ],
  },
  {
    name: 'lease counted from the response',
    seed: 80,
    faults: ['trap'],
    patches: [
      [
        'verifier/lease.ts',
        'this.#granted = { sentAt, ms: leaseMs };',
        'this.#granted = { sentAt: time.note(), ms: leaseMs };',
      ],
    ],
  },
  {
    name: 'a lease length of the verifier`s own',
    seed: 3,
    patches: [
      [
        'verifier/lease.ts',
        'this.#granted = { sentAt, ms: leaseMs };',
        'this.#granted = { sentAt, ms: Math.max(leaseMs, 1_500) };',
      ],
    ],
  },
  {
    name: 'a joiner served without a lease',
    seed: 49,
    faults: ['arrival'],
    patches: [
      [
        'verifier/fills.ts',
        'let fill = held ? this.#shared.get(hash) : undefined;',
        'let fill = this.#shared.get(hash);',
      ],
      ['verifier/fills.ts', 'else if (joined && !isLeaseHeld()) continue;', ''],
    ],
  },
  {
    name: 'a row reaped although it was renewed',
    seed: 79,
    faults: ['absence', 'pause'],
    Store: DeadRowDeletedBlindly,
  },
  {
    name: 'a renewal watched as if it were the one before',
    seed: 30,
    patches: [['invalidation/leases.ts', 'before?.renewal === renewal ? before', 'before ? before']],
  },
  {
    name: 'wall clock alone',
    seed: 2_023,
    patches: [
      [
        'verifier/time.ts',
        'return Math.max(steadyMs, this.wallMs - moment.wallMs);',
        'return this.wallMs - moment.wallMs + 0 * steadyMs;',
      ],
    ],
  },
  {
    name: 'monotonic clock alone',
    seed: 642,
    patches: [
      [
        'verifier/time.ts',
        'return Math.max(steadyMs, this.wallMs - moment.wallMs);',
        'return this.monotonicMs - moment.monotonicMs + 0 * steadyMs;',
      ],
    ],
  },
  {
    name: 'no drift allowance',
    seed: 420,
    faults: ['drift', 'island', 'trap'],
    patches: [['invalidation/types.ts', 'export const DRIFT = 0.2;', 'export const DRIFT = 0;']],
  },
  {
    name: 'a length once granted forgotten',
    faults: ['leaseLength', 'trap', 'gatewayLine'],
    seed: 1_667,
    Store: RowLengthOverwritten,
  },
  {
    name: 'released before it stops answering',
    seed: 15,
    faults: ['stopGateway', 'arrival'],
    patches: [
      [
        'verifier/lease.ts',
        '    this.#stopped = true;\n    this.#granted = undefined;\n',
        '    this.#stopped = true;\n',
      ],
    ],
  },
  {
    name: 'an ended lease not waited for',
    faults: ['endLease'],
    patches: [
      [
        'invalidation/confirm.ts',
        'reading.leases.filter(({ released }) => !released)',
        'reading.leases.filter(({ released, ended }) => !released && !ended)',
      ],
    ],
  },
];
