import type { StoreConnection } from '@latchkey/token-service/invalidation';
import { type Connection, Pool, type Transaction } from '../connection.js';
import type { LeaseRow, Server } from '../server.js';
import { type LeaseRequest, SimulatedStore } from '../store.js';

/* Mutants of the store and the pool, where the rule is SQL's or the pool's. */

export class LeasesReadBeforeCommit extends Pool {
  override async transaction<T>(...[connection, body, behind]: Transacts<T>): Promise<T> {
    const { reading } = ((await connection.statement(behind, 'reads')) ?? {}) as { reading?: unknown };
    return { ...(await super.transaction(connection, body, behind)), ...(reading !== undefined && { reading }) };
  }
}

type Transacts<T> = [connection: Connection, body: (tx: Transaction) => Promise<void>, behind: (server: Server) => T];

export class CursorById extends SimulatedStore {
  protected override head(server: Server) {
    let last = 0n;
    for (const { xid } of server.tables.invalidations) if (xid > last) last = xid;
    return { ...super.head(server), xmin: String(last + 1n) };
  }
}

export class CursorInAStatementOfItsOwn extends SimulatedStore {
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

export class DeadRowDeletedBlindly extends SimulatedStore {
  protected override delete({ tables }: Server, verifierId: string): boolean {
    return tables.leases.delete(verifierId);
  }
}

export class RowLengthOverwritten extends SimulatedStore {
  protected override longer(_oldMs: number, grantedMs: number): number {
    return grantedMs;
  }
}

/** The identity of the database is not compared. */
export class RestoredLogKeepsItsId extends SimulatedStore {
  protected override head(server: Server) {
    return { ...super.head(server), isCurrent: true };
  }
}

export class UnownedLeaseLeftOut extends SimulatedStore {
  protected override addUnownedLease(server: Server): void {
    server.takeXid();
  }
}

/** A folder put back in place is not noticed. */
export class NonceNotCompared extends SimulatedStore {
  protected override remembers(): boolean {
    return true;
  }
}

/** A nonce that is not kept is never taken for an old one. */
export class NeverLate extends SimulatedStore {
  protected override isLate(): boolean {
    return false;
  }
}

/** Each verifier that shows that history has forgotten something has a log begun, also under the same start. */
export class LogBegunForEach extends SimulatedStore {
  protected override canHaveForgotten(): boolean {
    return true;
  }
}

/** Any caller that names its id can release a lease. */
export class ReleasedById extends SimulatedStore {
  override releaseLease(...[verifierId, caller]: Parameters<SimulatedStore['releaseLease']>) {
    return this.statement((server) => {
      const { leases } = server.tables;
      const row = leases.get(verifierId);
      if (row?.caller !== caller || row.released) return false;
      leases.set(verifierId, { ...row, released: true, renewal: server.takeXid() });
      return true;
    });
  }
}

/** The last nonce given and the last one presented are kept. */
export class TwoNonces extends SimulatedStore {
  protected override nonces(row: LeaseRow | undefined, nonce: string, presented: string | null): readonly string[] {
    const given = super.nonces(row, nonce, presented);
    return given.length > 2 ? [given[0]!, given.at(-1)!] : given;
  }
}

/** Neither is the nonce compared nor a cursor that lies ahead of the log noticed. */
export class StartNotNoticed extends SimulatedStore {
  protected override head(server: Server) {
    return { ...super.head(server), isCurrent: server.tables.incarnation === server.incarnation };
  }
}

/** For a second connection beside the one in use. */
const FURTHER = Number.POSITIVE_INFINITY;

export class ProofElsewhere extends Pool {
  override authoritative<T>(read: (server: Server) => T): Promise<T> {
    return this.withConnection(async (connection) => {
      if (!this.authority.holds(connection)) await this.prove(connection);
      return this.withConnection((other) => other.statement(read, 'reads'), FURTHER);
    });
  }
}

export class LogReadElsewhere extends SimulatedStore {
  protected override on(connection: Connection) {
    const readLog: StoreConnection['readLog'] = (...what) =>
      this.pool.withConnection((other) => super.on(other).readLog(...what), FURTHER);
    return { ...super.on(connection), readLog };
  }
}

/** An id asked for is handed out, and a claim always stands for the same one. */
export class IdsHandedOutAgain extends SimulatedStore {
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

/** The caller is not compared where a claim is known. */
export class ClaimOfAnyCaller extends SimulatedStore {
  protected override take(server: Server, request: LeaseRequest) {
    const { claim } = request;
    const text = 'hash' in claim ? Buffer.from(claim.hash).toString('hex') : undefined;
    const row = [...server.tables.leases.values()].find((lease) => text !== undefined && lease.claim === text);
    return super.take(server, row ? { ...request, caller: { ...request.caller, id: row.caller } } : request);
  }
}

/** Nor is it where an id is known. */
export class RowOfAnyCaller extends SimulatedStore {
  protected override take(server: Server, request: LeaseRequest) {
    const { claim, cursor, caller } = request;
    const row = 'ownId' in claim ? server.tables.leases.get(claim.ownId) : undefined;
    if (!row || row.claim === null) return super.take(server, request);
    const hash = Buffer.from(row.claim, 'hex');
    return super.take(server, { ...request, claim: { hash }, cursor, caller: { ...caller, id: row.caller } });
  }
}
