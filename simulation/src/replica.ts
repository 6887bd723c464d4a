import {
  type Effect,
  type LookupResponse,
  REDIS,
  type ReleaseRequest,
  type RenewRequest,
  type RenewResponse,
} from '@latchkey/contracts';
import type { Confirmations, InvalidationLog, LeaseCaller, Leases } from '@latchkey/token-service/invalidation';
import type { Pool } from './connection.js';
import type { Database } from './database.js';
import { Machine } from './machine.js';
import { type Change, lookup, type Model, type Token } from './model.js';
import { goodLine, type Line, type Redis, Unavailable } from './network.js';
import type { Published } from './published.js';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';
import type { Tables } from './server.js';
import type { Modules } from './shipped.js';
import type { SimulatedStore } from './store.js';

const secret = (name: string) => new TextEncoder().encode(`${name} secret of the simulated world`);
const EVENTS_SECRET = secret('events');
const USAGE_SECRET = secret('usage');
export const SIGNING_SECRET = secret('signing');
/** How often a replica reaps leases, within the length of one. */
const REAPS_PER_LEASE = 3;
/** How soon a folder that was put back is noticed where a wait ends: shorter than in production, as leases are. */
export const NOTICED_WITHIN_MS = 200;
/** How often it prunes the log. */
const PRUNE_EVERY_MS = 300;
/** No replica of any world grants longer leases. */
export const LEASE_MS_MAX = 1_200;
export const LEASE_MS_MIN = 200;
export const FIRST_PARTY: LeaseCaller = { id: 'first-party', firstParty: true, holder: 'first-party' };

/** What all processes of a world share. */
export interface Environment {
  readonly random: Random;
  readonly schedule: Schedule;
  readonly db: Database;
  readonly redis: Redis;
  readonly model: Model;
  readonly modules: Modules;
  /** Retention of rows of the log: short or long, in either case shorter than in production. */
  readonly retentionMs: number;
  /** Every message of the feed that a token-service has published. */
  readonly published: Published;
}

interface Process {
  readonly log: InvalidationLog;
  readonly leases: Leases;
  readonly confirmations: Confirmations;
  readonly store: SimulatedStore;
  readonly pool: Pool;
}

/** One process of the token-service: the shipped invalidation module, and as much of the rest as a change needs. */
export class Replica {
  readonly machine: Machine;
  /** To PostgreSQL, to Redis, and to the verifiers. */
  readonly dbLine: Line = goodLine();
  readonly redisLine = goodLine();
  readonly line = goodLine();
  readonly #env: Environment;
  #process: Process | undefined;

  constructor(
    readonly name: string,
    env: Environment,
  ) {
    this.#env = env;
    this.machine = new Machine(env.schedule, env.random);
  }

  get alive(): boolean {
    return this.#process !== undefined;
  }

  start(leaseMs: number): void {
    if (this.#process) return;
    const { db, redis, modules, random, schedule, retentionMs } = this.#env;
    const { machine, dbLine, redisLine } = this;
    const newId = () => random.uuid(schedule.nowMs);
    const pool = new modules.Pool(db, { random, schedule, client: machine, line: dbLine }, modules, leaseMs);
    const store = new modules.Store(pool);
    const log = new modules.InvalidationLog({ store, newId, clock: machine, leaseMs });
    const bus = {
      publish: (text: string) => {
        this.#env.published.add(text);
        return redis.publish(REDIS.invalidations, redisLine, text);
      },
      subscribe: (onMessage: (text: string) => void) =>
        redis.subscribe(REDIS.acknowledgements, machine, redisLine, onMessage),
    };
    const feedKeys = new modules.FeedKeys({ secrets: [SIGNING_SECRET], store, clock: machine, leaseMs });
    const deps = { store, log, bus, clock: machine, leaseMs, eventsSecret: EVENTS_SECRET, feedKeys };
    const randomBytes = (length: number) => random.bytes(length);
    const leases = new modules.Leases({ ...deps, newId, randomBytes, usageSecret: USAGE_SECRET });
    const process = {
      log,
      store,
      pool,
      leases,
      confirmations: new modules.Confirmations({ ...deps, noticedWithinMs: NOTICED_WITHIN_MS }),
    };
    process.confirmations.start();
    this.#process = process;
    this.#repeat(process, leaseMs / REAPS_PER_LEASE, () => process.leases.reap());
    this.#repeat(process, PRUNE_EVERY_MS, () => store.pruneLog(retentionMs, 100));
  }

  kill(): void {
    this.machine.kill();
    this.#process = undefined;
  }

  /** What this process has read leases from last. */
  get readFrom(): Tables | undefined {
    return this.#process?.store.readFrom;
  }

  async lookup(hash: string): Promise<LookupResponse> {
    const { projects } = this.#env.model;
    const { pool } = this.#running();
    return pool.authoritative(({ tables }) => ({ ...lookup(tables.rights, projects, hash), log: tables.log }));
  }

  async renew(request: RenewRequest, caller = FIRST_PARTY): Promise<RenewResponse> {
    return this.#running().leases.renew(request, caller);
  }

  async release(request: ReleaseRequest, caller = FIRST_PARTY): Promise<void> {
    await this.#running().leases.release(request, caller.id);
  }

  /**
   * A change with its invalidation in one transaction, and the leases read behind its commit; then the wait. A repeated
   * one finds the first one's row, commits nothing new, and waits.
   */
  async change(change: Change, id: string, waitMs: number | undefined): Promise<Effect> {
    const { random, schedule } = this.#env;
    const repeatId = `${id.slice(0, -1)}${id.endsWith('0') ? '1' : '0'}`;
    const process = this.#running();
    const { confirmations, log, pool, store } = process;
    const mustLive = () => {
      if (this.#process !== process) throw new Unavailable('killed');
    };
    const sent = log.sending();
    const { kind, subject, cut } = change;
    const behind = await pool.withConnection((connection) =>
      pool.transaction(
        connection,
        async (tx) => {
          // One whose row was pruned is published again, under an id of its own.
          const found = await tx.read(({ invalidations, changes }) => {
            const isKnown = invalidations.some((one) => one.id === id || one.id === repeatId);
            return isKnown ? undefined : changes.has(id) ? repeatId : id;
          });
          if (!found) return;
          tx.write(({ changes, rights, invalidations }) => {
            if (invalidations.some((one) => one.id === found)) return;
            changes.add(id);
            change.apply(rights);
            invalidations.push({ id: found, kind, subject, cut, xid: tx.xid, createdMs: schedule.nowMs });
          });
          const statements = random.int(0, 1);
          for (let i = 0; i < statements; i++) await tx.read(() => undefined);
          if (random.chance(0.25)) await schedule.wait(random.spread(5, 300));
          mustLive();
        },
        (server) => {
          const rows = server.tables.invalidations.filter((one) => one.id === id || one.id === repeatId);
          return { reading: store.leasesNow(server), rows, from: server.tables };
        },
      ),
    );
    mustLive();
    store.readFrom = behind.from;
    log.note(behind.reading, sent);
    const written = behind.rows.map((row) => ({ id: row.id, kind, subject, cut, xid: String(row.xid) }));
    if (written.length === 0) throw new Unavailable('the row was pruned or lost meanwhile');
    return confirmations.confirm(written, { reading: behind.reading, ...(waitMs !== undefined && { waitMs }) });
  }

  async issue(token: Token): Promise<void> {
    const { pool } = this.#running();
    const write = ({ rights }: Tables) => rights.tokens.set(token.hash, token);
    await pool.withConnection((connection) =>
      pool.transaction(
        connection,
        async (tx) => tx.write(write),
        () => undefined,
      ),
    );
  }

  #repeat(process: Process, everyMs: number, what: () => Promise<unknown>): void {
    this.machine.after(everyMs, () => {
      const next = () => this.#process === process && this.#repeat(process, everyMs, what);
      what().then(next, next);
    });
  }

  #running(): Process {
    if (!this.#process) throw new Unavailable('connection refused');
    return this.#process;
  }
}
