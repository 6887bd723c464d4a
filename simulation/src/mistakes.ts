import { Database } from './database.js';
import type { FaultName } from './faults.js';
import type { Machine } from './machine.js';
import { type Patch, patchedRooms } from './patched.js';
import { type Rooms, shipped } from './shipped.js';
import { SimulatedStore } from './store.js';

/** A rule of the protocol left out: by changing a copy of the shipped files, or in the store, where their SQL has it. */
export interface Mistake {
  readonly name: string;
  readonly patches?: readonly Patch[];
  readonly Store?: typeof SimulatedStore;
  readonly Database?: typeof Database;
  /** The faults of the worlds that look for it; by default each draws its own. */
  readonly faults?: readonly FaultName[];
  /** How long those worlds last. Default 120. */
  readonly steps?: number;
  /** Where the search begins. */
  readonly seed?: number;
}

/** The shipped rooms with one mistake in them. */
export async function roomsWith({ name, patches = [], Store, Database: Db }: Mistake): Promise<Rooms> {
  const patched = patches.length > 0 ? await patchedRooms(name, patches) : {};
  return { ...shipped, ...patched, ...(Store && { Store }), ...(Db && { Database: Db }) };
}

/** Remembers what the leases were when a client last began a transaction. */
class RememberingDatabase extends Database {
  readonly leasesAtBegin = new Map<Machine, Leases>();
  override transaction(...[client, line, body]: Parameters<Database['transaction']>): Promise<void> {
    this.leasesAtBegin.set(client, new LeasesReadBeforeCommit(this, client, line).leasesNow());
    return super.transaction(client, line, body);
  }
}

type Leases = Awaited<ReturnType<SimulatedStore['readLeases']>>;

class LeasesReadBeforeCommit extends SimulatedStore {
  /** The leases as they were when this client's last change began; once. */
  before(): Leases | undefined {
    const { leasesAtBegin } = this.db as RememberingDatabase;
    const leases = leasesAtBegin.get(this.machine);
    leasesAtBegin.delete(this.machine);
    return leases;
  }

  override leasesNow(): Leases {
    return super.leasesNow();
  }
}

class CursorById extends SimulatedStore {
  protected override head() {
    let last = 0n;
    for (const { xid } of this.db.tables.invalidations) if (xid > last) last = xid;
    return { ...super.head(), xmin: String(last + 1n) };
  }
}

class CursorInAStatementOfItsOwn extends SimulatedStore {
  override async readLog(...[fromXid, limit]: Parameters<SimulatedStore['readLog']>) {
    const rows = await this.statement(() => this.rowsFrom(fromXid, limit));
    return { ...(await this.statement(() => this.head())), ...rows };
  }
}

class DeadRowDeletedBlindly extends SimulatedStore {
  override deleteLease(verifierId: string): Promise<boolean> {
    return this.statement(() => this.db.tables.leases.delete(verifierId));
  }
}

class RowLengthOverwritten extends SimulatedStore {
  protected override longer(_oldMs: number, grantedMs: number): number {
    return grantedMs;
  }
}

class NobodysLeaseLeftOut extends SimulatedStore {
  protected override putDown(): void {
    this.db.takeXid();
  }
}

/** An id asked for is handed out, and a claim always stands for the same one. */
class IdsHandedOutAgain extends SimulatedStore {
  static readonly #ids = new Map<string, string>();

  protected override idOf(request: Parameters<SimulatedStore['idOf']>[0]): string {
    const { claim, fresh } = request;
    if ('ownId' in claim) return claim.ownId;
    const text = Buffer.from(claim.hash).toString('hex');
    const id = IdsHandedOutAgain.#ids.get(text) ?? fresh.verifierId;
    IdsHandedOutAgain.#ids.set(text, id);
    return id;
  }
}

/** The caller is not looked at where a claim is known. */
class ClaimOfAnybody extends SimulatedStore {
  protected override take(request: Parameters<SimulatedStore['take']>[0]) {
    const { claim } = request;
    const text = 'hash' in claim ? Buffer.from(claim.hash).toString('hex') : undefined;
    const row = [...this.db.tables.leases.values()].find((lease) => text !== undefined && lease.claim === text);
    return super.take(row ? { ...request, caller: { ...request.caller, id: row.caller } } : request);
  }
}

/** Nor is it where an id is known. */
class RowOfAnybody extends SimulatedStore {
  protected override take(request: Parameters<SimulatedStore['take']>[0]) {
    const { claim, cursor, caller } = request;
    const row = 'ownId' in claim ? this.db.tables.leases.get(claim.ownId) : undefined;
    if (!row || row.claim === null) return super.take(request);
    const hash = Buffer.from(row.claim, 'hex');
    return super.take({ ...request, claim: { hash }, cursor, caller: { ...caller, id: row.caller } });
  }
}

/** A digest that says no more than the id. */
const BY_ID = "const byId = (id: string) => id.replaceAll('-', '').padEnd(43, '0');";

export const mistakes: readonly Mistake[] = [
  {
    name: 'leases read before the commit',
    seed: 35,
    Store: LeasesReadBeforeCommit,
    Database: RememberingDatabase,
    patches: [
      [
        'invalidation/confirm.ts',
        'const { clock, log, leaseMs } = this.#parts;',
        'const { clock, log, leaseMs, store } = this.#parts;',
      ],
      [
        'invalidation/confirm.ts',
        'try {\n      reading = await log.leases();',
        'try {\n      reading = store.before() ?? (await log.leases());',
      ],
    ],
  },
  {
    name: 'invalidations read before the lease commits',
    faults: ['absence'],
    steps: 200,
    seed: 4016,
    patches: [
      [
        'invalidation/leases.ts',
        'const taken = await store.takeLease(',
        'const answer = await log.since(cursor);\n    const taken = await store.takeLease(',
      ],
      [
        'invalidation/leases.ts',
        '    const answer = await log.since(cursor);\n    this.counters.renewed++;',
        '    this.counters.renewed++;',
      ],
    ],
  },
  {
    name: 'ancestors not matched against a fill',
    seed: 723,
    patches: [
      ['verifier/applied.ts', 'token.id === subject || token.ancestors.includes(subject)', 'token.id === subject'],
    ],
  },
  {
    name: 'poisoned fill stored',
    seed: 82,
    patches: [['verifier/fills.ts', 'if (applied.poisons(position, response)) {', 'if (position < 0) {']],
  },
  {
    name: 'lease counted from the answer',
    faults: ['trap'],
    seed: 634,
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
    seed: 12,
    patches: [
      [
        'verifier/lease.ts',
        'this.#granted = { asked, ms: leaseMs };',
        'this.#granted = { asked, ms: Math.max(leaseMs, 1_500) };',
      ],
    ],
  },
  { name: 'cursor by id', seed: 6, Store: CursorById },
  { name: 'cursor and rows from two statements', Store: CursorInAStatementOfItsOwn },
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
    faults: ['arrival'],
    seed: 62,
    patches: [['verifier/applied.ts', "  reset(): void {\n    this.#note('everything', '');", '  reset(): void {']],
  },
  {
    name: 'a joiner served without a lease',
    faults: ['arrival'],
    seed: 38,
    patches: [
      [
        'verifier/fills.ts',
        'let fill = held ? this.#shared.get(hash) : undefined;',
        'let fill = this.#shared.get(hash);',
      ],
      ['verifier/fills.ts', 'if (joined && !isLeaseHeld()) continue;', ''],
    ],
  },
  {
    name: 'a dead row deleted whatever its renewal',
    faults: ['absence', 'pause'],
    seed: 2,
    Store: DeadRowDeletedBlindly,
  },
  {
    name: 'a renewal watched as if it were the one before',
    seed: 18,
    patches: [['invalidation/leases.ts', 'before?.renewal === renewal ? before', 'before ? before']],
  },
  {
    name: 'an acknowledgement believed without its proof',
    seed: 35,
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
    seed: 24,
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
    seed: 90,
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
    seed: 118,
    patches: [['invalidation/types.ts', 'export const DRIFT = 0.2;', 'export const DRIFT = 0;']],
  },
  {
    name: 'a length once granted forgotten',
    faults: ['leaseLength', 'island'],
    seed: 142,
    Store: RowLengthOverwritten,
  },
  {
    name: 'a cursor at the invalidation confirms it',
    patches: [['invalidation/confirm.ts', 'BigInt(xid) < BigInt(cursor.xid)', 'BigInt(xid) <= BigInt(cursor.xid)']],
  },
  {
    name: 'a pruned log read without a reset',
    seed: 4,
    patches: [['invalidation/log.ts', 'xid > BigInt(reading.removedTo) &&', '']],
  },
  {
    name: 'a restored log keeps its id',
    seed: 17,
    patches: [
      ['invalidation/log.ts', 'if (!reading.sameDatabase) {', 'if (reading.log === null) {'],
      ['invalidation/log.ts', 'if (reading.sameDatabase) return reading;', 'if (reading.log !== null) return reading;'],
    ],
  },
  { name: 'leases from before a restore forgotten', seed: 86, Store: NobodysLeaseLeftOut },
  {
    name: 'misses that outlive an import',
    seed: 2,
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
    seed: 82,
    patches: [
      ['verifier/applied.ts', "if (!known || !token) return kind === 'misses';", 'if (!known || !token) return false;'],
    ],
  },
  {
    name: 'released before it is silent',
    seed: 68,
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
    seed: 81,
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
    faults: ['signer'],
    patches: [
      ['verifier/feed.ts', "if (known[i] === 'same')", "if (known[i] !== 'no')"],
      ['verifier/feed.ts', "if (known.includes('other')) {", 'if (known.length === 0) {'],
    ],
  },
  {
    name: 'a renewal`s invalidation skipped by its id alone',
    faults: ['signer', 'gatewayRedis'],
    patches: [
      [
        'verifier/lease.ts',
        "if (applied.known(fact.id, digest) === 'same' || applied",
        "if (applied.known(fact.id, digest) !== 'no' || applied",
      ],
      ['verifier/lease.ts', 'sentCursor?.log !== cursor.log || contradicted) {', 'sentCursor?.log !== cursor.log) {'],
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
    name: 'a claim kept after its lease was ended',
    faults: ['endLease'],
    patches: [['verifier/lease.ts', '    this.#claim = newClaim();\n    counters', '    newClaim();\n    counters']],
  },
];
