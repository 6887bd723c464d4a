import { Pool } from './connection.js';
import type { FaultName } from './faults.js';
import {
  ClaimOfAnybody,
  CursorById,
  CursorInAStatementOfItsOwn,
  DeadRowDeletedBlindly,
  IdsHandedOutAgain,
  LeasesReadBeforeCommit,
  LogBegunForEach,
  LogReadElsewhere,
  NeverLate,
  NobodysLeaseLeftOut,
  NonceNotCompared,
  ProofElsewhere,
  ReleasedById,
  RestoredLogKeepsItsId,
  RowLengthOverwritten,
  RowOfAnybody,
  StartNotNoticed,
  TwoNonces,
} from './mistaken.js';
import { type Patch, patchedRooms } from './patched.js';
import { type Rooms, shipped } from './shipped.js';
import { SimulatedStore } from './store.js';

/** A rule of the protocol left out: by changing a copy of the shipped files, or in the store, where their SQL has it. */
export interface Mistake {
  readonly name: string;
  readonly patches?: readonly Patch[];
  readonly Store?: typeof SimulatedStore;
  readonly Pool?: typeof Pool;
  /** The faults of the worlds that look for it; by default each draws its own. */
  readonly faults?: readonly FaultName[];
  /** How long those worlds last. Default 120. */
  readonly steps?: number;
  /** Where the search begins. */
  readonly seed?: number;
}

/** The shipped rooms with one mistake in them. */
export async function roomsWith({ name, patches = [], ...own }: Mistake): Promise<Rooms> {
  const patched = patches.length > 0 ? await patchedRooms(name, patches) : {};
  const { Store = SimulatedStore, Pool: Connections = Pool } = own;
  return { ...shipped, ...patched, Store, Pool: Connections };
}

/** A digest that says no more than the id. */
const BY_ID = "const byId = (id: string) => id.replaceAll('-', '').padEnd(43, '0');";

/** A cursor beyond the log's end is taken as it is. */
const BEYOND_IS_NOTHING: Patch = [
  'invalidation/log.ts',
  'const isBeyond = cursor?.log === reading.log && BigInt(cursor.xid) > BigInt(reading.xmin);',
  'const isBeyond = cursor?.log === reading.log && BigInt(cursor.xid) < 0n;',
];

export const mistakes: readonly Mistake[] = [
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
        "const answer = await log.since(here, cursor, caller.firstParty, '18446744073709551614');\n      const taken = await here.takeLease(take);",
      ],
      [
        'invalidation/leases.ts',
        'return { taken, answer: await log.since(here, known, caller.firstParty, taken.renewal) };',
        'return { taken, answer: known === cursor ? answer : { ...answer, reset: true } };',
      ],
    ],
  },
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
  {
    name: 'lease counted from the answer',
    seed: 80,
    faults: ['trap'],
    patches: [
      [
        'verifier/lease.ts',
        'this.#granted = { asked, ms: leaseMs };',
        'this.#granted = { asked: time.note(), ms: leaseMs };',
      ],
    ],
  },
  {
    name: 'a lease length of the verifier`s own',
    seed: 3,
    patches: [
      [
        'verifier/lease.ts',
        'this.#granted = { asked, ms: leaseMs };',
        'this.#granted = { asked, ms: Math.max(leaseMs, 1_500) };',
      ],
    ],
  },
  { name: 'cursor by id', Store: CursorById },
  {
    name: 'cursor and rows from two statements',
    seed: 7,
    faults: ['gatewayRedis', 'replicaDatabase', 'redis'],
    Store: CursorInAStatementOfItsOwn,
  },
  {
    name: 'acknowledged before it is applied',
    patches: [
      [
        'verifier/feed.ts',
        'else apply(invalidation, digests[i]!);',
        'else this.#parts.clock.after(20, () => apply(invalidation, digests[i]!));',
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
    name: 'a dead row deleted whatever its renewal',
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
    name: 'an acknowledgement believed without its proof',
    seed: 82,
    patches: [
      [
        'invalidation/confirm.ts',
        'if (!key || !verifyAcknowledgement(key, event)) {',
        'if (!key || !verifyAcknowledgement) {',
      ],
    ],
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
    name: 'a restored log keeps its id',
    Store: RestoredLogKeepsItsId,
  },
  { name: 'leases from before a restore forgotten', Store: NobodysLeaseLeftOut },
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
    name: 'an unknown answer not poisoned by an import',
    seed: 22,
    faults: ['gatewayLine', 'replicaDatabase'],
    patches: [
      ['verifier/applied.ts', "if (!known || !token) return kind === 'misses';", 'if (!known || !token) return false;'],
    ],
  },
  {
    name: 'released before it is silent',
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
  {
    name: 'a message of the feed believed without its signature',
    faults: ['holder'],
    patches: [
      [
        'verifier/feed.ts',
        'const digests = verifyInvalidationEvent(key, event);',
        'const digests = verifyInvalidationEvent({ id: key.id, verifies: () => true }, event);',
      ],
    ],
  },
  {
    name: 'the key that checks signs as well',
    faults: ['holder'],
    patches: [
      [
        'verifier/lease.ts',
        'const key = known.has(text) ? known.get(text) : feedKey(bytes);',
        `const own = known.has(text) ? known.get(text) : feedKey(bytes);
      const key = own && {
        id: own.id,
        verifies: (said: string, signature: string) =>
          createHmac('sha512', bytes).update(said).digest('base64url') === signature,
      };`,
      ],
      [
        'verifier/lease.ts',
        "import { type Applied, type Fact, kindOf } from './applied.js';",
        "import { createHmac } from 'node:crypto';\nimport { type Applied, type Fact, kindOf } from './applied.js';",
      ],
      [
        'invalidation/confirm.ts',
        'signInvalidations(feedKeys.signer, log, some)',
        `signInvalidations(
        {
          ...feedKeys.signer,
          sign: (said) => createHmac('sha512', feedKeys.signer.publicKey).update(said).digest('base64url'),
        },
        log,
        some,
      )`,
      ],
      [
        'invalidation/confirm.ts',
        "import type { FeedKeys } from './feed-keys.js';",
        "import { createHmac } from 'node:crypto';\nimport type { FeedKeys } from './feed-keys.js';",
      ],
    ],
  },
  {
    name: 'an acknowledgement that covers the id alone',
    seed: 8,
    faults: ['signer'],
    patches: [
      [
        'verifier/feed.ts',
        'this.#acknowledge(digests);\n    return undefined;',
        'this.#acknowledge(event.invalidations.map(({ id }) => byId(id)));\n    return undefined;',
      ],
      ['verifier/feed.ts', 'const EARLY_MAX = 256;', `const EARLY_MAX = 256;\n${BY_ID}`],
      [
        'invalidation/confirm.ts',
        'const digests = invalidations.map((invalidation) => digestOf(reading.log, invalidation));',
        'const digests = invalidations.map(({ id }) => byId(id));',
      ],
      ['invalidation/confirm.ts', 'const STRUCK_MAX = 1_000;', `const STRUCK_MAX = 1_000;\n${BY_ID}`],
    ],
  },
  {
    name: 'a message skipped by its id alone',
    seed: 14,
    faults: ['signer'],
    patches: [
      ['verifier/feed.ts', "if (known[i] === 'same')", "if (known[i] !== 'no')"],
      ['verifier/feed.ts', "if (known.includes('other')) {", 'if (known.length === 0) {'],
    ],
  },
  {
    name: 'a renewal`s invalidation skipped by its id alone',
    seed: 589,
    faults: ['signer', 'gatewayRedis'],
    patches: [
      [
        'verifier/lease.ts',
        "if (applied.known(fact.id, digest) === 'same' || applied",
        "if (applied.known(fact.id, digest) !== 'no' || applied",
      ],
      [
        'verifier/lease.ts',
        'if (answer.reset || !isContinued || contradicted) {',
        'if (answer.reset || !isContinued) {',
      ],
    ],
  },
  {
    name: 'one acknowledgement key for all',
    faults: ['holder'],
    patches: [
      [
        'invalidation/leases.ts',
        'acknowledgementKey(eventsSecret, { ...identity, salt: keySalt })',
        "acknowledgementKey(eventsSecret, { verifierId: '', caller: '', salt: keySalt.subarray(32) })",
      ],
      [
        'invalidation/confirm.ts',
        'acknowledgementKey(this.#parts.eventsSecret, { verifierId, caller, salt })',
        "acknowledgementKey(this.#parts.eventsSecret, { verifierId: '', caller: verifierId && caller && '', salt: salt.subarray(32) })",
      ],
    ],
  },
  {
    name: 'an id handed out again, and a key that outlives its row',
    faults: ['holder', 'absence', 'island'],
    Store: IdsHandedOutAgain,
    patches: [
      [
        'invalidation/leases.ts',
        `ackKey: isCurrent
        ? acknowledgementKey(eventsSecret, { ...identity, salt: keySalt })
        : usageKey(usageSecret, identity),`,
        "ackKey: acknowledgementKey(eventsSecret, { verifierId, caller: '', salt: keySalt.subarray(32) }),",
      ],
      [
        'invalidation/confirm.ts',
        'acknowledgementKey(this.#parts.eventsSecret, { verifierId, caller, salt })',
        "acknowledgementKey(this.#parts.eventsSecret, { verifierId, caller: caller && '', salt: salt.subarray(32) })",
      ],
    ],
  },
  { name: 'a claim answered whoever makes it', faults: ['holder'], Store: ClaimOfAnybody },
  { name: 'a row renewed by whoever names its id', faults: ['holder'], Store: RowOfAnybody },
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
    name: 'two nonces kept',
    faults: ['pause', 'replicaLine', 'restart'],
    Store: TwoNonces,
  },
  {
    name: 'a renewal of long ago taken for a forgotten history',
    faults: ['pause', 'gatewayLine', 'restart'],
    steps: 200,
    Store: NeverLate,
  },
  {
    name: 'a log begun for each that shows it to be forgetful',
    faults: ['backUp', 'restoreInPlace', 'island'],
    Store: LogBegunForEach,
  },
  {
    name: 'a lease given back by its id',
    faults: ['holder'],
    patches: [['invalidation/leases.ts', 'CLAIM_PATTERN.test(claim) &&', "claim !== 'none' &&"]],
    Store: ReleasedById,
  },
  {
    name: 'a change waited for that was forgotten',
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
    name: 'rows of another history believed',
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
    name: 'acknowledged by all, and the database not looked at again',
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
    name: 'what is known of the history, however long ago it was read',
    seed: 299,
    faults: ['backUp', 'restoreInPlace', 'swap', 'pause', 'replicaDatabase'],
    patches: [['invalidation/confirm.ts', 'log.historyAgeMs <= this.#noticedWithinMs', 'log.historyAgeMs >= 0']],
  },
  {
    name: 'a message below the cursor taken for an old one, though no lease vouches for the cursor',
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
    name: 'what was looked up since the last renewal vouched for by the next',
    faults: ['swap'],
    patches: [['verifier/memory.ts', 'for (const entry of this.#fresh) entry.version = DEAD;', '']],
  },
  {
    name: 'no authority window',
    seed: 1_329,
    faults: ['promote', 'gatewayLine'],
    patches: [['database/authority.ts', 'this.#time.elapsedMs(proof.begun) < proof.windowMs', 'proof.windowMs > 0']],
  },
  {
    name: 'a warning at a commit not heard',
    faults: ['promote'],
    patches: [
      [
        'database/authority.ts',
        'if (connection.warnings === warnings) return;',
        'if (connection.warnings >= warnings) return;',
      ],
    ],
  },
  {
    name: 'proof and reading on different connections',
    seed: 604,
    faults: ['promote', 'gatewayRedis'],
    steps: 200,
    Pool: ProofElsewhere,
  },
  {
    name: 'the lease on one connection, the log on another',
    seed: 885,
    faults: ['promote', 'gatewayLine'],
    Store: LogReadElsewhere,
  },
  {
    name: 'leases read without a proof',
    faults: ['promote'],
    patches: [['invalidation/log.ts', '    await here.prove();\n', '']],
  },
  {
    name: 'a fill of another log kept',
    seed: 3_062,
    faults: ['promote', 'wall', 'drift', 'repeat'],
    patches: [['verifier/fills.ts', 'if (isOfAnotherLog(response, applied)) {', 'if (isOfAnotherLog === undefined) {']],
  },
];
