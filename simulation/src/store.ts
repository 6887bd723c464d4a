import type { InvalidationStore, StoreConnection } from '@latchkey/token-service/invalidation';
import type { Connection, Pool } from './connection.js';
import type { LeaseRow, Server, Tables } from './server.js';

type Does<K extends keyof InvalidationStore> = ReturnType<InvalidationStore[K]>;
type Takes<K extends keyof InvalidationStore> = Parameters<InvalidationStore[K]>;
export type LeaseRequest = Parameters<StoreConnection['takeLease']>[0];
export type LeaseTaken = Awaited<ReturnType<StoreConnection['takeLease']>>;
export type LogReading = Awaited<ReturnType<StoreConnection['readLog']>>;
export type LeasesReading = Awaited<ReturnType<StoreConnection['readLeases']>>;

const NONCES_MAX = 64;

/**
 * What the invalidation module needs of PostgreSQL, over simulated servers. Each method does what the shipped SQL does
 * (`postgres-store.ts`, migrations 0300, 0400 and 0430), as one statement at one instant.
 */
export class SimulatedStore implements InvalidationStore {
  protected readonly pool: Pool;
  /** What the leases that arrived last were read from. */
  readFrom: Tables | undefined;

  constructor(pool: Pool) {
    this.pool = pool;
  }

  onOneConnection<T>(work: (here: StoreConnection) => Promise<T>): Promise<T> {
    return this.pool.withConnection((connection) => work(this.on(connection)));
  }

  protected on(connection: Connection): StoreConnection {
    const reads = <T>(run: (server: Server) => T) => this.pool.unwarned(connection, run, 'reads');
    const writes = <T>(run: (server: Server) => T) => this.pool.unwarned(connection, run, 'writes');
    return {
      prove: () => this.pool.prove(connection),
      takeLease: (request) => writes((server) => this.take(server, request)),
      readLog: (fromXid, limit) =>
        reads((server) => ({ ...this.head(server), ...this.rowsFrom(server, fromXid, limit) })),
      followDatabase: (...how) => writes((server) => this.follow(server, ...how)),
      readLeases: async () => {
        const { from, reading } = await reads((server) => ({ from: server.tables, reading: this.leasesNow(server) }));
        this.readFrom = from;
        return reading;
      },
      knownInvalidations: (ids) =>
        reads(({ tables }) => ids.filter((id) => tables.invalidations.some((row) => row.id === id))),
      deleteLease: (verifierId, renewal) => writes((server) => this.delete(server, verifierId, renewal)),
    };
  }

  protected take(server: Server, request: LeaseRequest): LeaseTaken {
    const { tables } = server;
    const { claim, name, caller, cursor, leaseMs, leasesMax, fresh, presented } = request;
    const old = this.find(tables, claim, caller.id);
    if (old && old.caller !== caller.id) return { outcome: 'foreign' };
    if (old && (old.ended || old.released || old.claim !== claimText(claim))) return { outcome: 'ended' };
    if (!old) {
      const count = [...tables.leases.values()].filter((lease) => lease.holder === caller.holder).length;
      if (leasesMax !== null && count >= leasesMax) return { outcome: 'too_many' };
    }
    tables.longestLeaseMs = Math.max(tables.longestLeaseMs, leaseMs);
    const isRemembered = this.remembers(old, presented);
    const isLate = this.isLate(old, presented);
    const nonce = nonceAfter(old?.nonces[0], request.nonce);
    const row: LeaseRow = {
      verifierId: old?.verifierId ?? this.idOf(request),
      claim: old?.claim ?? claimText(claim),
      keySalt: old?.keySalt ?? fresh.keySalt,
      nonces: this.nonces(old, nonce, presented),
      isReborn: old?.isReborn ?? presented !== null,
      name,
      caller: caller.id,
      holder: caller.holder,
      released: false,
      ended: false,
      renewal: server.takeXid(),
      cursor: isLate ? old!.cursor : cursor && isRemembered ? { log: cursor.log, xid: BigInt(cursor.xid) } : null,
      leaseMs: this.longer(old?.leaseMs ?? 0, leaseMs),
    };
    tables.leases.set(row.verifierId, row);
    // A lapse, or a request that comes late, explains it as well: that concerns this verifier alone.
    const remembered = isRemembered || (row.isReborn || isLate ? null : false);
    return {
      outcome: 'taken',
      verifierId: row.verifierId,
      keySalt: row.keySalt!,
      remembered,
      renewal: String(row.renewal),
      nonce,
    };
  }

  /** Whether the row has the nonce; a verifier that presents none has nothing that could have been forgotten. */
  protected remembers(row: LeaseRow | undefined, presented: string | null): boolean {
    if (presented === null) return true;
    return row?.nonces.includes(presented) ?? false;
  }

  /** Older than one presented before: a late request, whose response no verifier waits for. */
  protected isLate(row: LeaseRow | undefined, presented: string | null): boolean {
    const oldest = row?.nonces.at(-1);
    return presented !== null && oldest !== undefined && presented < oldest;
  }

  /**
   * Those given since the one presented last, which a verifier presents until it gets another. Only those given in this
   * history.
   */
  protected nonces(row: LeaseRow | undefined, nonce: string, presented: string | null): readonly string[] {
    const before = row?.nonces ?? [];
    if (this.isLate(row, presented)) return before;
    const index = presented === null ? -1 : before.indexOf(presented);
    const given = [nonce, ...(index < 0 ? before : before.slice(0, index + 1))];
    return given.length > NONCES_MAX ? [...given.slice(0, NONCES_MAX - 1), given.at(-1)!] : given;
  }

  /** The row of the claim; for a verifier of version 0.1, also another caller's. */
  protected find({ leases }: Tables, claim: Claim, caller: string): LeaseRow | undefined {
    if ('ownId' in claim) return leases.get(claim.ownId);
    const text = claimText(claim);
    return [...leases.values()].find((lease) => lease.caller === caller && lease.claim === text);
  }

  /** The id of a new row. */
  protected idOf({ claim, fresh }: LeaseRequest): string {
    return 'ownId' in claim ? claim.ownId : fresh.verifierId;
  }

  protected follow(server: Server, log: string, unowned: string, leaseMs: number, forgetful: string | null): void {
    const { tables, incarnation, started } = server;
    const isHere = tables.incarnation === incarnation;
    if (!isHere || (tables.log === forgetful && this.canHaveForgotten(server))) {
      tables.log = log;
      tables.begunIn = started;
      if (!isHere) tables.removedTo = 0n;
      const xid = server.takeXid();
      tables.invalidations = tables.invalidations.map((row) => (row.xid > xid ? { ...row, xid } : row));
    } else if (tables.startedAt === started) return;
    tables.incarnation = incarnation;
    tables.startedAt = started;
    const longestMs = Math.max(
      leaseMs,
      tables.longestLeaseMs,
      ...[...tables.leases.values()].map((row) => row.leaseMs),
    );
    this.addUnownedLease(server, unowned, longestMs);
  }

  /** A log that was begun since the server started has forgotten nothing: a folder put back takes a start. */
  protected canHaveForgotten({ tables, started }: Server): boolean {
    return tables.begunIn !== started;
  }

  protected delete({ tables: { leases } }: Server, verifierId: string, renewal: string): boolean {
    return String(leases.get(verifierId)?.renewal) === renewal && leases.delete(verifierId);
  }

  releaseLease(...[verifierId, caller, hash]: Takes<'releaseLease'>): Does<'releaseLease'> {
    return this.statement((server) => {
      const { leases } = server.tables;
      const row = leases.get(verifierId);
      if (row?.caller !== caller || row.claim !== claimText({ hash }) || row.released) return false;
      leases.set(verifierId, { ...row, released: true, renewal: server.takeXid() });
      return true;
    });
  }

  /** Which callers are locked out, and when, is in SQL alone; here none is. */
  async strike(): Does<'strike'> {
    return null;
  }

  async noteConfirmations(): Does<'noteConfirmations'> {
    return undefined;
  }

  async announceKeys(...[ids]: Takes<'announceKeys'>): Does<'announceKeys'> {
    return ids.map(() => 0);
  }

  pruneLog(...[retentionMs, limit]: Takes<'pruneLog'>): Does<'pruneLog'> {
    return this.statement((server) => server.prune(retentionMs, limit));
  }

  /** A write on any connection. */
  protected statement<T>(run: (server: Server) => T): Promise<T> {
    return this.pool.withConnection((connection) => connection.statement(run, 'writes'));
  }

  /** `greatest(old, granted)`. */
  protected longer(oldMs: number, grantedMs: number): number {
    return Math.max(oldMs, grantedMs);
  }

  /** An unowned lease, for verifiers whose rows this history has forgotten. */
  protected addUnownedLease(server: Server, unowned: string, leaseMs: number): void {
    server.tables.leases.set(unowned, {
      verifierId: unowned,
      claim: null,
      keySalt: null,
      nonces: [],
      isReborn: false,
      name: 'whoever was there before',
      caller: 'nobody', // as in the database
      holder: '',
      released: false,
      ended: false,
      renewal: server.takeXid(),
      cursor: null,
      leaseMs,
    });
  }

  protected head(server: Server) {
    const { log, removedTo, incarnation, startedAt } = server.tables;
    return {
      log,
      history: `${log}/${startedAt}`,
      isCurrent: incarnation === server.incarnation && startedAt === server.started,
      xmin: String(server.xmin()),
      removedTo: String(removedTo),
    };
  }

  protected rowsFrom({ tables }: Server, fromXid: string | null, limit: number): Pick<LogReading, 'invalidations'> {
    const from = fromXid === null ? undefined : BigInt(fromXid);
    const found = tables.invalidations.filter(({ xid }) => from !== undefined && xid >= from);
    return {
      invalidations: found
        .sort((a, b) => (a.xid < b.xid ? -1 : 1))
        .slice(0, limit + 1)
        .map(({ id, kind, subject, cut, xid }) => ({ id, kind, subject, cut, xid: String(xid) })),
    };
  }

  leasesNow(server: Server): LeasesReading {
    const { log, history, isCurrent } = this.head(server);
    return {
      log,
      history,
      isCurrent,
      leases: [...server.tables.leases.values()].map(
        ({ claim: _, nonces: _nonces, isReborn: _reborn, caller, renewal, cursor, ...row }) => ({
          ...row,
          callerId: caller,
          caller: caller.startsWith('token:') ? ({ type: 'token' } as const) : ({ type: 'first_party' } as const),
          renewal: String(renewal),
          cursor: cursor && { log: cursor.log, xid: String(cursor.xid) },
        }),
      ),
    };
  }
}

type Claim = LeaseRequest['claim'];

const claimText = (claim: Claim): string | null => ('hash' in claim ? Buffer.from(claim.hash).toString('hex') : null);

/** As the migration makes them: the number in the first eight digits. */
function nonceAfter(before: string | undefined, random: string): string {
  const number = Number.parseInt(before?.slice(0, 8) ?? '0', 16) + 1;
  return number.toString(16).padStart(8, '0') + random.slice(8);
}
