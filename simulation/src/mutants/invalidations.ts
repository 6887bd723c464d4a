import type { Mutant } from './mutant.js';
import { CursorById, CursorInAStatementOfItsOwn, NonceNotCompared } from './mutated.js';

/** Rules of the log, of fills and of streams: which invalidations reach a verifier, and what it then drops. */
export const invalidations: readonly Mutant[] = [
  {
    name: 'ancestors not matched against a fill',
    seed: 376,
    patches: [
      ['verifier/applied.ts', 'token.id === subject || token.ancestors.includes(subject)', 'token.id === subject'],
    ],
  },
  {
    name: 'poisoned fill stored',
    seed: 13,
    patches: [['verifier/fills.ts', 'if (applied.poisons(position, response)) {', 'if (position < 0) {']],
  },
  { name: 'cursor by id', Store: CursorById },
  {
    name: 'cursor and rows from two statements',
    seed: 7,
    faults: ['gatewayRedis', 'replicaDatabase', 'redis'],
    Store: CursorInAStatementOfItsOwn,
  },
  {
    name: 'an invalidation acknowledged before it is applied',
    patches: [
      [
        'verifier/feed.ts',
        'else apply(invalidation, digests[i]!);',
        'else this.#deps.clock.after(20, () => apply(invalidation, digests[i]!));',
      ],
    ],
  },
  {
    name: 'a reset that does not poison',
    faults: ['arrival', 'gatewayRedis'],
    seed: 453,
    patches: [['verifier/applied.ts', "  reset(): void {\n    this.#note('everything', '');", '  reset(): void {']],
  },
  {
    name: 'a cursor at the invalidation confirms it',
    seed: 9,
    patches: [['invalidation/confirm.ts', 'BigInt(xid) < BigInt(cursor.xid)', 'BigInt(xid) <= BigInt(cursor.xid)']],
  },
  {
    name: 'a pruned log read without a reset',
    Store: NonceNotCompared,
    seed: 285,
    faults: ['gatewayRedis', 'island'],
    patches: [['invalidation/log.ts', 'xid > BigInt(reading.removedTo) &&', '']],
  },
  {
    name: 'misses that outlive an import',
    patches: [
      [
        'verifier/memory.ts',
        "else if (kind === 'misses') this.#misses.clear();",
        "else if (kind === 'misses') return;",
      ],
    ],
  },
  {
    name: 'a fill of an unknown token not poisoned by an import',
    seed: 22,
    faults: ['gatewayLine', 'replicaDatabase'],
    patches: [
      ['verifier/applied.ts', "if (!known || !token) return kind === 'misses';", 'if (!known || !token) return false;'],
    ],
  },
  {
    name: 'streams cut after the acknowledgement',
    patches: [
      [
        'verifier/streams.ts',
        "if (cut) this.#cut(watch, 'revoked');\n      else this.#recheck(watch, true);",
        'this.#recheck(watch, true);',
      ],
    ],
  },
  {
    name: 'streams whose token is not known yet left open',
    seed: 191,
    faults: ['gatewayLine', 'island'],
    patches: [
      [
        'verifier/streams.ts',
        "for (const watch of this.#watches) if (!watch.entry) this.#cut(watch, 'unavailable');",
        '',
      ],
    ],
  },
];
