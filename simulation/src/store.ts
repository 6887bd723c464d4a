import type { InvalidationStore } from '@latchkey/token-service/invalidation';
import type { Database } from './database.js';
import type { Machine } from './machine.js';
import type { Line } from './network.js';

type Does<K extends keyof InvalidationStore> = ReturnType<InvalidationStore[K]>;
type Takes<K extends keyof InvalidationStore> = Parameters<InvalidationStore[K]>;

/**
 * What the invalidation room needs of PostgreSQL, over the simulated one. Each method says what the shipped SQL says
 * (`postgres-store.ts`, migration 0300), as one statement at one instant.
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
    const { verifierId, name, caller, cursor, leaseMs, callerLeasesMax } = request;
    return this.statement(() => {
      const { leases } = this.db.tables;
      const old = leases.get(verifierId);
      if (old && old.caller !== caller) return 'foreign';
      const held = [...leases.values()].filter((lease) => lease.caller === caller).length;
      if (!old && callerLeasesMax !== null && held >= callerLeasesMax) return 'too_many';
      leases.set(verifierId, {
        verifierId,
        name,
        caller,
        renewal: this.db.takeXid(),
        cursor: cursor && { log: cursor.log, xid: BigInt(cursor.xid) },
        leaseMs: this.longer(old?.leaseMs ?? 0, leaseMs),
      });
      return 'taken';
    });
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
      return leases.get(verifierId)?.caller === caller && leases.delete(verifierId);
    });
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
      name: 'whoever was there before the restore',
      caller: 'nobody',
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
      leases: [...leases.values()].map(({ verifierId, name, renewal, cursor, leaseMs }) => ({
        verifierId,
        name,
        renewal: String(renewal),
        cursor: cursor && { log: cursor.log, xid: String(cursor.xid) },
        leaseMs,
      })),
    };
  }
}
