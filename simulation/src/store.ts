import type { InvalidationStore } from '@latchkey/token-service/invalidation';
import type { Database, LeaseRow } from './database.js';
import type { Machine } from './machine.js';
import type { Line } from './network.js';

type Does<K extends keyof InvalidationStore> = ReturnType<InvalidationStore[K]>;
type Takes<K extends keyof InvalidationStore> = Parameters<InvalidationStore[K]>;

/**
 * What the invalidation room needs of PostgreSQL, over the simulated one. Each method says what the shipped SQL says
 * (`postgres-store.ts`, migrations 0300 and 0400), as one statement at one instant.
 */
export class SimulatedStore implements InvalidationStore {
  protected readonly db: Database;
  protected readonly machine: Machine;
  readonly #line: Line;

  constructor(db: Database, machine: Machine, line: Line) {
    this.db = db;
    this.machine = machine;
    this.#line = line;
  }

  takeLease(...[request]: Takes<'takeLease'>): Does<'takeLease'> {
    return this.statement(() => this.take(request));
  }

  protected take(request: Takes<'takeLease'>[0]): Awaited<Does<'takeLease'>> {
    const { claim, name, caller, cursor, leaseMs, leasesMax, fresh } = request;
    const { leases } = this.db.tables;
    const old = this.find(claim, caller.id);
    if (old && old.caller !== caller.id) return { outcome: 'foreign' };
    if (old && (old.ended || old.released || old.claim !== claimText(claim))) return { outcome: 'ended' };
    if (!old) {
      const held = [...leases.values()].filter((lease) => lease.holder === caller.holder).length;
      if (leasesMax !== null && held >= leasesMax) return { outcome: 'too_many' };
    }
    const row: LeaseRow = {
      verifierId: old?.verifierId ?? this.idOf(request),
      claim: old?.claim ?? claimText(claim),
      keySalt: old?.keySalt ?? fresh.keySalt,
      name,
      caller: caller.id,
      holder: caller.holder,
      released: false,
      ended: false,
      renewal: this.db.takeXid(),
      cursor: cursor && { log: cursor.log, xid: BigInt(cursor.xid) },
      leaseMs: this.longer(old?.leaseMs ?? 0, leaseMs),
    };
    leases.set(row.verifierId, row);
    return { outcome: 'taken', verifierId: row.verifierId, keySalt: row.keySalt! };
  }

  /** The row that the claim stands for; of a verifier of version 0.1, whoever's it is. */
  protected find(claim: Claim, caller: string): LeaseRow | undefined {
    const { leases } = this.db.tables;
    if ('ownId' in claim) return leases.get(claim.ownId);
    const text = claimText(claim);
    return [...leases.values()].find((lease) => lease.caller === caller && lease.claim === text);
  }

  /** The id of a new row. */
  protected idOf({ claim, fresh }: Takes<'takeLease'>[0]): string {
    return 'ownId' in claim ? claim.ownId : fresh.verifierId;
  }

  readLog(...[fromXid, limit]: Takes<'readLog'>): Does<'readLog'> {
    return this.statement(() => ({ ...this.head(), ...this.rowsFrom(fromXid, limit) }));
  }

  renewLog(...[log, nobody, leaseMs]: Takes<'renewLog'>): Does<'renewLog'> {
    return this.statement(() => {
      const { tables, incarnation } = this.db;
      if (tables.incarnation === incarnation) return;
      const longest = Math.max(leaseMs, ...[...tables.leases.values()].map((lease) => lease.leaseMs));
      tables.log = log;
      tables.removedTo = 0n;
      tables.invalidations = [];
      tables.incarnation = incarnation;
      this.putDown(nobody, longest);
    });
  }

  readLeases(): Does<'readLeases'> {
    return this.statement(() => this.leasesNow());
  }

  deleteLease(...[verifierId, renewal]: Takes<'deleteLease'>): Does<'deleteLease'> {
    return this.statement(() => {
      const { leases } = this.db.tables;
      return String(leases.get(verifierId)?.renewal) === renewal && leases.delete(verifierId);
    });
  }

  releaseLease(...[verifierId, caller]: Takes<'releaseLease'>): Does<'releaseLease'> {
    return this.statement(() => {
      const { leases } = this.db.tables;
      const row = leases.get(verifierId);
      if (row?.caller !== caller || row.released) return false;
      leases.set(verifierId, { ...row, released: true, renewal: this.db.takeXid() });
      return true;
    });
  }

  /** An administrator ends a lease. */
  endLease(verifierId: string): void {
    const { leases } = this.db.tables;
    const row = leases.get(verifierId);
    if (row) leases.set(verifierId, { ...row, ended: true });
  }

  /** Who is kept off, and when, is SQL's alone; here nobody is. */
  async strike(): Does<'strike'> {
    return null;
  }

  async noteConfirmations(): Does<'noteConfirmations'> {
    return undefined;
  }

  async announceKeys(...[ids]: Takes<'announceKeys'>): Does<'announceKeys'> {
    return ids.map(() => 0);
  }

  pruneLog(...[keepMs, limit]: Takes<'pruneLog'>): Does<'pruneLog'> {
    return this.statement(() => this.db.prune(keepMs, limit));
  }

  protected statement<T>(run: () => T): Promise<T> {
    return this.db.statement(this.machine, this.#line, run);
  }

  /** `greatest(old, granted)`. */
  protected longer(oldMs: number, grantedMs: number): number {
    return Math.max(oldMs, grantedMs);
  }

  /** A lease in nobody's hands, for those whose rows a restored backup has lost. */
  protected putDown(nobody: string, leaseMs: number): void {
    this.db.tables.leases.set(nobody, {
      verifierId: nobody,
      claim: null,
      keySalt: null,
      name: 'whoever was there before the restore',
      caller: 'nobody',
      holder: '',
      released: false,
      ended: false,
      renewal: this.db.takeXid(),
      cursor: null,
      leaseMs,
    });
  }

  protected head() {
    const { log, removedTo, incarnation } = this.db.tables;
    return {
      log,
      sameDatabase: incarnation === this.db.incarnation,
      xmin: String(this.db.xmin()),
      removedTo: String(removedTo),
    };
  }

  protected rowsFrom(fromXid: string | null, limit: number) {
    const from = fromXid === null ? undefined : BigInt(fromXid);
    const found = this.db.tables.invalidations.filter(({ xid }) => from !== undefined && xid >= from);
    return {
      invalidations: found
        .sort((a, b) => (a.xid < b.xid ? -1 : 1))
        .slice(0, limit + 1)
        .map(({ id, kind, subject, cut, xid }) => ({ id, kind, subject, cut, xid: String(xid) })),
    };
  }

  protected leasesNow() {
    const { log, incarnation, leases } = this.db.tables;
    return {
      log,
      sameDatabase: incarnation === this.db.incarnation,
      leases: [...leases.values()].map(({ claim: _, caller, renewal, cursor, ...row }) => ({
        ...row,
        callerId: caller,
        caller: caller.startsWith('token:') ? ({ type: 'token' } as const) : ({ type: 'first_party' } as const),
        renewal: String(renewal),
        cursor: cursor && { log: cursor.log, xid: String(cursor.xid) },
      })),
    };
  }
}

type Claim = Takes<'takeLease'>[0]['claim'];

const claimText = (claim: Claim): string | null => ('hash' in claim ? Buffer.from(claim.hash).toString('hex') : null);
