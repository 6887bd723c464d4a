import type { StoreConnection } from '@latchkey/token-service/invalidation';
import { type Connection, Pool, type Transaction } from './connection.js';
import type { FaultName } from './faults.js';
import { mends } from './mends.js';
import { type Patch, patchedRooms } from './patched.js';
import type { LeaseRow, Server } from './server.js';
import { type Rooms, shipped } from './shipped.js';
import { type LeaseRequest, SimulatedStore } from './store.js';

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

/** A mistake may be planted where something is still to be mended. */
const isOf = ([file, was]: Patch, patches: readonly Patch[]) =>
  patches.some(([otherFile, text]) => otherFile === file && text === was);

/** The shipped rooms with one mistake in them. */
export async function roomsWith({ name, patches = [], ...own }: Mistake): Promise<Rooms> {
  const patched =
    patches.length > 0 ? await patchedRooms(name, [...mends.filter((mend) => !isOf(mend, patches)), ...patches]) : {};
  const { Store = SimulatedStore, Pool: Connections = Pool } = own;
  return { ...shipped, ...patched, Store, Pool: Connections };
}

class LeasesReadBeforeCommit extends Pool {
  override async transaction<T>(...[connection, body, behind]: Transacts<T>): Promise<T> {
    const { reading } = ((await connection.statement(behind, 'reads')) ?? {}) as { reading?: unknown };
    return { ...(await super.transaction(connection, body, behind)), ...(reading !== undefined && { reading }) };
  }
}

type Transacts<T> = [connection: Connection, body: (tx: Transaction) => Promise<void>, behind: (server: Server) => T];

class CursorById extends SimulatedStore {
  protected override head(server: Server) {
    let last = 0n;
    for (const { xid } of server.tables.invalidations) if (xid > last) last = xid;
    return { ...super.head(server), xmin: String(last + 1n) };
  }
}

class CursorInAStatementOfItsOwn extends SimulatedStore {
  protected override on(connection: Connection) {
    return {
      ...super.on(connection),
      readLog: async (fromXid: string | null, limit: number) => {
        const rows = await connection.statement((server) => this.rowsFrom(server, fromXid, limit), 'reads');
        return { ...(await connection.statement((server) => this.head(server), 'reads')), ...rows };
      },
    };
  }
}

class DeadRowDeletedBlindly extends SimulatedStore {
  protected override delete({ tables }: Server, verifierId: string): boolean {
    return tables.leases.delete(verifierId);
  }
}

class RowLengthOverwritten extends SimulatedStore {
  protected override longer(_oldMs: number, grantedMs: number): number {
    return grantedMs;
  }
}

/** What tells another database from this one is not looked at. */
class RestoredLogKeepsItsId extends SimulatedStore {
  protected override head(server: Server) {
    return { ...super.head(server), isCurrent: true };
  }
}

class NobodysLeaseLeftOut extends SimulatedStore {
  protected override putDown(server: Server): void {
    server.takeXid();
  }
}

/** Nothing tells that a folder was put back in place. */
class NonceNotCompared extends SimulatedStore {
  protected override remembers(): boolean {
    return true;
  }
}

/** The last nonce given and the last one presented are kept. */
class TwoNonces extends SimulatedStore {
  protected override nonces(row: LeaseRow | undefined, { nonce, presented }: LeaseRequest): string[] {
    return [nonce, ...(presented !== null && this.remembers(row, presented) ? [presented] : [])];
  }
}

/** So is one that was presented and not known. */
class NoncePresentedKept extends SimulatedStore {
  protected override nonces(row: LeaseRow | undefined, request: LeaseRequest): string[] {
    return [...super.nonces(row, request), ...(request.presented === null ? [] : [request.presented])];
  }
}

/** Neither is the nonce compared nor a cursor that lies ahead of the log noticed. */
class StartNotNoticed extends SimulatedStore {
  protected override head(server: Server) {
    return { ...super.head(server), isCurrent: server.tables.incarnation === server.incarnation };
  }
}

class ProofElsewhere extends Pool {
  override authoritative<T>(read: (server: Server) => T): Promise<T> {
    return this.lend(async (connection) => {
      if (!this.authority.holds(connection)) await this.prove(connection);
      return this.lend((other) => other.statement(read, 'reads'));
    });
  }
}

class LogReadElsewhere extends SimulatedStore {
  protected override on(connection: Connection) {
    const readLog: StoreConnection['readLog'] = (...what) =>
      this.pool.lend((other) => super.on(other).readLog(...what));
    return { ...super.on(connection), readLog };
  }
}

/** An id asked for is handed out, and a claim always stands for the same one. */
class IdsHandedOutAgain extends SimulatedStore {
  static readonly #ids = new Map<string, string>();

  protected override idOf(request: LeaseRequest): string {
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
  protected override take(server: Server, request: LeaseRequest) {
    const { claim } = request;
    const text = 'hash' in claim ? Buffer.from(claim.hash).toString('hex') : undefined;
    const row = [...server.tables.leases.values()].find((lease) => text !== undefined && lease.claim === text);
    return super.take(server, row ? { ...request, caller: { ...request.caller, id: row.caller } } : request);
  }
}

/** Nor is it where an id is known. */
class RowOfAnybody extends SimulatedStore {
  protected override take(server: Server, request: LeaseRequest) {
    const { claim, cursor, caller } = request;
    const row = 'ownId' in claim ? server.tables.leases.get(claim.ownId) : undefined;
    if (!row || row.claim === null) return super.take(server, request);
    const hash = Buffer.from(row.claim, 'hex');
    return super.take(server, { ...request, claim: { hash }, cursor, caller: { ...caller, id: row.caller } });
  }
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
    seed: 35,
    Pool: LeasesReadBeforeCommit,
  },
  {
    name: 'invalidations read before the lease commits',
    faults: ['absence'],
    steps: 200,
    seed: 4016,
    patches: [
      [
        'invalidation/leases.ts',
        'const taken = await here.takeLease(take);',
        'const answer = await log.since(here, cursor, caller.firstParty);\n      const taken = await here.takeLease(take);',
      ],
      [
        'invalidation/leases.ts',
        'return { taken, answer: await log.since(here, known, caller.firstParty) };',
        'return { taken, answer: known === cursor ? answer : { ...answer, reset: true } };',
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
    Store: RestoredLogKeepsItsId,
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
  {
    name: 'a nonce not compared',
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
    faults: ['restoreInPlace', 'island'],
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
    name: 'a nonce that came back and was not known is kept',
    faults: ['restoreInPlace', 'replicaDatabase', 'killReplica'],
    Store: NoncePresentedKept,
  },
  {
    name: 'two nonces kept',
    faults: ['pause', 'replicaLine'],
    Store: TwoNonces,
  },
  {
    name: 'no authority window',
    faults: ['promote'],
    patches: [['database/authority.ts', 'this.#time.elapsedMs(proof.begun) < proof.windowMs', 'proof.windowMs > 0']],
  },
  {
    name: 'the authority window counted from the end of the commit',
    faults: ['promote', 'replicaDatabase'],
    patches: [
      ['database/authority.ts', 'connection.proof = { begun,', 'connection.proof = { begun: this.#time.note(),'],
    ],
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
  { name: 'proof and reading on different connections', faults: ['promote'], Pool: ProofElsewhere },
  { name: 'the lease on one connection, the log on another', faults: ['promote'], Store: LogReadElsewhere },
  {
    name: 'leases read without a proof',
    faults: ['promote'],
    patches: [['invalidation/log.ts', '    await here.prove();\n', '']],
  },
  {
    name: 'leases read without a proof, and a row of another log missed',
    faults: ['promote'],
    patches: [
      ['invalidation/log.ts', '    await here.prove();\n', ''],
      ['invalidation/confirm.ts', '    if (reading.log !== wait.log) return;\n', ''],
    ],
  },
  {
    name: 'a row that is gone from another log',
    faults: ['promote', 'restore', 'island'],
    patches: [['invalidation/confirm.ts', '    if (reading.log !== wait.log) return;\n', '']],
  },
  {
    name: 'leases from before a fail-over forgotten',
    faults: ['promote'],
    Store: NobodysLeaseLeftOut,
  },
  {
    name: 'a fill of another log kept',
    faults: ['promote'],
    patches: [[...mends[0]!.slice(0, 2), mends[0]![1]] as unknown as Patch],
  },
  {
    name: 'an older timeline answered from',
    faults: ['promote'],
    patches: [
      [
        'database/authority.ts',
        'return highest !== undefined && timeline < highest;',
        'return highest === timeline + 1;',
      ],
    ],
  },
  {
    name: 'the window as long as this process grants, and nobody told',
    faults: ['promote', 'leaseLength'],
    patches: [
      ['database/authority.ts', 'windowMs: Math.min(this.#leaseMs, leaseMs)', 'windowMs: this.#leaseMs'],
      ['database/authority.ts', 'if (leaseMs < this.#leaseMs) await', 'if (leaseMs < 0) await'],
    ],
  },
];
