import type { Patch } from '../patched.js';
import type { Mutant } from './mutant.js';
import {
  LogBegunForEach,
  NeverLate,
  NonceNotCompared,
  RestoredLogKeepsItsId,
  StartNotNoticed,
  TwoNonces,
  UnownedLeaseLeftOut,
} from './mutated.js';

/** A cursor beyond the log's end is accepted. */
const BEYOND_IS_NOTHING: Patch = [
  'invalidation/log.ts',
  'const isBeyond = cursor?.log === reading.log && BigInt(cursor.xid) > BigInt(reading.xmin);',
  'const isBeyond = cursor?.log === reading.log && BigInt(cursor.xid) < 0n;',
];

/** Rules about a database that was restored, or put back as a folder. */
export const history: readonly Mutant[] = [
  {
    name: 'a restored log keeps its id',
    Store: RestoredLogKeepsItsId,
  },
  { name: 'leases from before a restore forgotten', Store: UnownedLeaseLeftOut },
  {
    name: 'a nonce not compared',
    seed: 985,
    faults: ['restoreInPlace', 'island'],
    Store: NonceNotCompared,
  },
  {
    name: 'a nonce not compared, nor a cursor beyond the log noticed',
    faults: ['restoreInPlace', 'island'],
    Store: NonceNotCompared,
    patches: [['invalidation/log.ts', '    xid <= BigInt(reading.xmin) &&\n', ''], BEYOND_IS_NOTHING],
  },
  {
    name: 'a nonce not remembered, and the cursor used all the same',
    seed: 1,
    faults: ['backUp', 'restoreInPlace', 'island', 'swap'],
    patches: [
      ['invalidation/leases.ts', 'const known = taken.remembered ? cursor : null;', 'const known = cursor;'],
      ['invalidation/leases.ts', 'if (taken.remembered === false && caller.firstParty) await log.forgotten(here);', ''],
    ],
  },
  {
    name: 'a start of the server not noticed',
    faults: ['restoreInPlace', 'island', 'gatewayRedis'],
    Store: StartNotNoticed,
  },
  {
    name: 'only two nonces kept',
    faults: ['pause', 'replicaLine', 'restart'],
    Store: TwoNonces,
  },
  {
    name: 'a late renewal taken for a forgotten history',
    faults: ['pause', 'gatewayLine', 'restart'],
    steps: 200,
    Store: NeverLate,
  },
  {
    name: 'a log begun for each verifier that shows that history has forgotten something',
    faults: ['backUp', 'restoreInPlace', 'island'],
    Store: LogBegunForEach,
  },
  {
    name: 'a forgotten change waited for',
    faults: ['backUp', 'restoreInPlace', 'island'],
    patches: [
      [
        'invalidation/confirm.ts',
        'if (!ids.every((id) => known.has(id))) throw new ChangeForgotten();',
        'if (known.size > ids.length) throw new ChangeForgotten();',
      ],
      ['invalidation/confirm.ts', '!wait.invalidations.every(({ id }) => found.known.has(id))', 'found.known.size < 0'],
    ],
  },
  {
    name: 'rows of another history accepted',
    faults: ['backUp', 'restoreInPlace', 'island'],
    patches: [
      [
        'invalidation/confirm.ts',
        'if (!wait.invalidations.every(({ id }) => found.known.has(id))) {',
        "if (reading.log === '') {",
      ],
      [
        'invalidation/confirm.ts',
        'const isSameHistory = reading.history === wait.history;',
        'const isSameHistory = reading.log === wait.log;',
      ],
    ],
  },
  {
    name: 'acknowledged by all, and the database not read again',
    faults: ['backUp', 'restoreInPlace', 'pause'],
    patches: [
      [
        'invalidation/confirm.ts',
        'const isDoubtful = wait.holders.size === 0 && !isSeen;',
        'const isDoubtful = wait.holders.size < 0 && !isSeen;',
      ],
    ],
  },
  {
    name: 'a reading of the history used however old it is',
    seed: 299,
    faults: ['backUp', 'restoreInPlace', 'swap', 'pause', 'replicaDatabase'],
    patches: [['invalidation/confirm.ts', 'log.historyAgeMs <= this.#noticedWithinMs', 'log.historyAgeMs >= 0']],
  },
  {
    name: 'a message below the cursor taken for an old one, though no lease confirms the cursor',
    seed: 240,
    faults: ['backUp', 'restoreInPlace', 'gatewayLine', 'gatewayRedis'],
    patches: [['verifier/feed.ts', 'lease.held() && applied.isBelowCursor', 'applied.isBelowCursor']],
  },
  {
    name: 'the history of a renewal not compared',
    faults: ['swap'],
    patches: [['verifier/lease.ts', '} else if (history !== this.#history) {', '} else if (history === undefined) {']],
  },
  {
    name: 'entries since the last renewal confirmed by the next',
    faults: ['swap'],
    patches: [['verifier/memory.ts', 'for (const entry of this.#fresh) entry.version = DEAD;', '']],
  },
];
