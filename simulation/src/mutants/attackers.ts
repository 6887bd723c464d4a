import type { Mutant } from './mutant.js';
import { ClaimOfAnyCaller, IdsHandedOutAgain, ReleasedById, RowOfAnyCaller } from './mutated.js';

/** A digest of the id alone. */
const BY_ID = "const byId = (id: string) => id.replaceAll('-', '').padEnd(43, '0');";

/** Rules that keep out attackers who hold leases, keys and Redis. */
export const attackers: readonly Mutant[] = [
  {
    name: 'an acknowledgement accepted without its proof',
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
    name: 'a message of the feed accepted without its signature',
    faults: ['attacker'],
    patches: [
      [
        'verifier/feed.ts',
        'const digests = verifyInvalidationEvent(key, event);',
        'const digests = verifyInvalidationEvent({ id: key.id, verifies: () => true }, event);',
      ],
    ],
  },
  {
    name: 'the verification key signs as well',
    faults: ['attacker'],
    patches: [
      [
        'verifier/lease.ts',
        'const key = known.has(text) ? known.get(text) : feedKey(bytes);',
        `const own = known.has(text) ? known.get(text) : feedKey(bytes);
      const key = own && {
        id: own.id,
        verifies: (message: string, signature: string) =>
          createHmac('sha512', bytes).update(message).digest('base64url') === signature,
      };`,
      ],
      [
        'verifier/lease.ts',
        "import { type Applied, kindOf } from './applied.js';",
        "import { createHmac } from 'node:crypto';\nimport { type Applied, kindOf } from './applied.js';",
      ],
      [
        'invalidation/confirm.ts',
        'signInvalidations(feedKeys.signer, log, some)',
        `signInvalidations(
        {
          ...feedKeys.signer,
          sign: (message) => createHmac('sha512', feedKeys.signer.publicKey).update(message).digest('base64url'),
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
        "if (applied.known(invalidation.id, digest) === 'same' || applied",
        "if (applied.known(invalidation.id, digest) !== 'no' || applied",
      ],
      [
        'verifier/lease.ts',
        'if (response.reset || !isContinued || contradicted) {',
        'if (response.reset || !isContinued) {',
      ],
    ],
  },
  {
    name: 'one acknowledgement key for all',
    faults: ['attacker'],
    patches: [
      [
        'invalidation/leases.ts',
        'acknowledgementKey(eventsSecret, { ...identity, salt: keySalt })',
        "acknowledgementKey(eventsSecret, { verifierId: '', caller: '', salt: keySalt.subarray(32) })",
      ],
      [
        'invalidation/confirm.ts',
        'acknowledgementKey(this.#deps.eventsSecret, { verifierId, caller, salt })',
        "acknowledgementKey(this.#deps.eventsSecret, { verifierId: '', caller: verifierId && caller && '', salt: salt.subarray(32) })",
      ],
    ],
  },
  {
    name: 'an id handed out again, and a key that outlives its row',
    faults: ['attacker', 'absence', 'island'],
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
        'acknowledgementKey(this.#deps.eventsSecret, { verifierId, caller, salt })',
        "acknowledgementKey(this.#deps.eventsSecret, { verifierId, caller: caller && '', salt: salt.subarray(32) })",
      ],
    ],
  },
  { name: 'a claim accepted from any caller', faults: ['attacker'], Store: ClaimOfAnyCaller },
  { name: 'a row renewed by any caller that names its id', faults: ['attacker'], Store: RowOfAnyCaller },
  {
    name: 'a lease released by its id',
    faults: ['attacker'],
    patches: [['invalidation/leases.ts', 'CLAIM_PATTERN.test(claim) &&', "claim !== 'none' &&"]],
    Store: ReleasedById,
  },
];
