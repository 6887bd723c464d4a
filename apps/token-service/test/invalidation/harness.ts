import { randomBytes } from 'node:crypto';
import type { Invalidation, InvalidationKind, LookupResponse, TokenSnapshot } from '@latchkey/contracts';
import { REDIS } from '@latchkey/contracts';
import { newId, systemClock } from '@latchkey/runtime';
import { type TestDatabase, type TestRedis, testRedis } from '@latchkey/testing';
import { hashSecret, mint } from '@latchkey/token-format';
import { type Feed, RenewalRefused, type TokenSource, Verifier, type VerifierLimits } from '@latchkey/verifier';
import { Redis } from 'ioredis';
import { Pool, type PoolClient } from 'pg';
import { Confirmations } from '../../src/invalidation/confirm.js';
import { FeedKeys } from '../../src/invalidation/feed-keys.js';
import { type LeaseCaller, LeaseRefused, Leases } from '../../src/invalidation/leases.js';
import { InvalidationLog } from '../../src/invalidation/log.js';
import { INSERT_INVALIDATIONS, PostgresStore } from '../../src/invalidation/postgres-store.js';
import { RedisBus } from '../../src/invalidation/redis-bus.js';
import { asRole, migratedDatabase } from '../database.js';

export const FIRST_PARTY: LeaseCaller = { id: 'first-party', firstParty: true, holder: 'first-party' };
export const EVENTS_SECRET = randomBytes(32);
export const USAGE_SECRET = randomBytes(32);
export const SIGNING_SECRET = randomBytes(32);

/** A third party: a token of the given owner, without ancestors. */
export function thirdParty(ownerId = newId(), tokenId = newId()): LeaseCaller {
  const token = { id: tokenId, ancestors: [], ownerId };
  return { id: `token:${tokenId}`, firstParty: false, holder: `user:${ownerId}`, token };
}

export const newClaim = (): string => randomBytes(32).toString('base64url');

/** A Redis connection that fails at once while Redis is unavailable. */
function redisAt(url: string): Redis {
  const redis = new Redis(url, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    disconnectTimeout: 100,
    autoResubscribe: false,
    retryStrategy: () => 20,
  });
  redis.on('error', () => undefined);
  return redis;
}

/** The invalidation module of one replica of the token-service. */
export class Replica {
  readonly pool: Pool;
  readonly store: PostgresStore;
  readonly log: InvalidationLog;
  readonly leases: Leases;
  readonly confirmations: Confirmations;
  readonly feedKeys: FeedKeys;
  readonly suspended: string[] = [];
  readonly #redis: Redis[];

  constructor(databaseUrl: string, redisUrl: string, leaseMs: number, signing: readonly Uint8Array[]) {
    this.pool = new Pool({ connectionString: asRole(databaseUrl, 'latchkey_service'), max: 10 });
    this.pool.on('error', () => undefined);
    const prepared =
      (on: Pick<Pool, 'query'>) =>
      async <Row extends object>(name: string, text: string, values: unknown[]): Promise<Row[]> =>
        (await on.query({ name, text, values })).rows as Row[];
    this.store = new PostgresStore({
      prepared: prepared(this.pool),
      onOneConnection: async (work) => {
        const connection = await this.pool.connect();
        try {
          const prove = async () => void (await connection.query('SELECT pg_current_xact_id()'));
          return await work({ prepared: prepared(connection as never), prove });
        } finally {
          connection.release();
        }
      },
    });
    this.#redis = [redisAt(redisUrl), redisAt(redisUrl)];
    const clock = systemClock;
    const { store } = this;
    this.log = new InvalidationLog({ store, newId, clock, leaseMs });
    const { log } = this;
    this.feedKeys = new FeedKeys({ secrets: signing, store, clock, leaseMs });
    const deps = { store, log, clock, leaseMs, eventsSecret: EVENTS_SECRET, feedKeys: this.feedKeys };
    this.leases = new Leases({ ...deps, newId, usageSecret: USAGE_SECRET });
    const bus = new RedisBus(this.#redis[0]!, this.#redis[1]!);
    const onSuspended = (holder: string) => this.suspended.push(holder);
    this.confirmations = new Confirmations({ ...deps, bus, onSuspended });
    this.confirmations.start();
  }

  async ready(): Promise<void> {
    for (const redis of this.#redis) if (redis.status !== 'ready') await new Promise((r) => redis.once('ready', r));
    await this.log.leases();
    await this.feedKeys.announce();
  }

  /** Commits an invalidation with whatever `change` does in the same transaction. */
  async invalidate(kind: InvalidationKind, subject = '', cut = false, change?: (tx: PoolClient) => Promise<unknown>) {
    const id = newId();
    const tx = await this.pool.connect();
    try {
      await tx.query('BEGIN');
      await change?.(tx);
      const { rows } = await tx.query(INSERT_INVALIDATIONS, [JSON.stringify([{ id, kind, subject, cut }])]);
      await tx.query('COMMIT');
      return { id, kind, subject, cut, xid: rows[0].xid as string } satisfies Invalidation;
    } finally {
      tx.release();
    }
  }

  async close(): Promise<void> {
    this.confirmations.stop();
    for (const redis of this.#redis) redis.disconnect();
    await this.pool.end();
  }
}

class RedisFeed implements Feed {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;
  constructor(url: string) {
    this.#publisher = redisAt(url);
    this.#subscriber = redisAt(url);
  }

  subscribe(onMessage: (text: string) => void): () => void {
    this.#subscriber.on('message', (_, text) => onMessage(text));
    this.#subscriber.on('ready', () => void this.#subscriber.subscribe(REDIS.invalidations).catch(() => undefined));
    return () => this.#subscriber.removeAllListeners('message');
  }

  async acknowledge(text: string): Promise<void> {
    await this.#publisher.publish(REDIS.acknowledgements, text);
  }

  close(): void {
    this.#publisher.disconnect();
    this.#subscriber.disconnect();
  }
}

/** The error of a refused renewal as a gateway gets it over gRPC. */
function refusedOverGrpc(error: unknown): never {
  if (!(error instanceof LeaseRefused)) throw error;
  const later = ['too_many', 'suspended', 'waiting'].includes(error.reason);
  throw new RenewalRefused(later ? 'later' : 'identity', error.message);
}

/** The verifier of a gateway, which can be cut off from the token-service. */
export class Gateway {
  readonly verifier: Verifier;
  readonly feed: RedisFeed;
  authorityUnavailable = false;
  /** While set, it receives messages and sends no acknowledgements. */
  isMute = false;
  /** Renewals in progress at a replica. */
  renewing = 0;
  /** The claim in use. */
  claim = '';

  constructor(cluster: Cluster, name: string, caller: LeaseCaller, limits: Partial<VerifierLimits>) {
    this.feed = new RedisFeed(cluster.redis.url);
    const at = () => {
      if (this.authorityUnavailable) throw new Error('the token-service is unavailable');
      return cluster.replicas[Math.floor(Math.random() * cluster.replicas.length)]!;
    };
    const source: TokenSource = {
      lookup: async (hash) => cluster.lookup(at(), hash),
      renew: async (request) => {
        const { leases } = at();
        this.renewing++;
        const renewed = leases.renew(request, caller).finally(() => this.renewing--);
        const response = await renewed.catch(refusedOverGrpc);
        if (this.authorityUnavailable) throw new Error('the response is lost');
        return response;
      },
      release: async (request) => void (await at().leases.release(request, caller.id)),
    };
    this.verifier = new Verifier({
      name,
      newClaim: () => {
        this.claim = newClaim();
        return this.claim;
      },
      clock: systemClock,
      source,
      feed: {
        subscribe: (onMessage) => this.feed.subscribe(onMessage),
        acknowledge: async (text) => {
          if (!this.isMute) await this.feed.acknowledge(text);
        },
      },
      limits,
    });
  }

  async accepts(secret: string): Promise<boolean> {
    return (await this.verifier.verify(secret, { scopes: [] })).allowed;
  }

  /** Stops without a release: no renewal, no response, no acknowledgement. */
  kill(): void {
    this.authorityUnavailable = true;
    this.feed.close();
  }

  async close(): Promise<void> {
    await this.verifier.stop();
    this.feed.close();
  }
}

/** Real PostgreSQL, real Redis, replicas and gateways in this process. */
export class Cluster {
  readonly replicas: Replica[] = [];
  readonly gateways: Gateway[] = [];

  private constructor(
    readonly database: TestDatabase,
    readonly redis: TestRedis,
  ) {}

  static async open(): Promise<Cluster> {
    const [database, redis] = await Promise.all([migratedDatabase({ quiet: true }), testRedis()]);
    await database.query('CREATE TABLE test_tokens (hash text PRIMARY KEY, id uuid NOT NULL, denial text NOT NULL)');
    await database.query('GRANT ALL ON test_tokens TO latchkey_service');
    return new Cluster(database, redis);
  }

  /** @param databaseUrl by which the replica reaches PostgreSQL; default: directly */
  async replica(
    leaseMs: number,
    signing: readonly Uint8Array[] = [SIGNING_SECRET],
    databaseUrl = this.database.url,
  ): Promise<Replica> {
    const replica = new Replica(databaseUrl, this.redis.url, leaseMs, signing);
    this.replicas.push(replica);
    await replica.ready();
    return replica;
  }

  async gateway(
    name = `gateway-${this.gateways.length + 1}`,
    caller = FIRST_PARTY,
    limits: Partial<VerifierLimits> = {},
  ): Promise<Gateway> {
    const gateway = new Gateway(this, name, caller, limits);
    this.gateways.push(gateway);
    await gateway.verifier.start();
    return gateway;
  }

  async lookup(replica: Replica, hash: string): Promise<LookupResponse> {
    const { rows } = await replica.pool.query('SELECT id, denial FROM test_tokens WHERE hash = $1', [hash]);
    if (!rows[0]) return { known: false, token: null };
    const token: TokenSnapshot = {
      id: rows[0].id,
      kind: 'pat',
      ownerType: 'user',
      ownerId: rows[0].id,
      project: '',
      denial: rows[0].denial,
      expiresAtMs: 0,
      scopes: [],
      allProjects: false,
      grants: [],
      ancestors: [],
      allowedIps: [],
      rateLimit: null,
    };
    return { known: true, token };
  }

  /** Issues a token and has every gateway cache it. */
  async token(): Promise<{ secret: string; id: string }> {
    const secret = mint('pat');
    const id = newId();
    await this.database.query(`INSERT INTO test_tokens VALUES ($1, $2, '')`, [hashSecret(secret), id]);
    for (const gateway of this.gateways) expect(await gateway.accepts(secret)).toBe(true);
    return { secret, id };
  }

  /** Commits the revocation of a token, without confirming it. */
  commit(replica: Replica, id: string): Promise<Invalidation> {
    return replica.invalidate('token', id, true, (tx) =>
      tx.query(`UPDATE test_tokens SET denial = 'revoked' WHERE id = $1`, [id]),
    );
  }

  async reset(): Promise<void> {
    await Promise.all(this.gateways.splice(0).map((gateway) => gateway.close()));
    await Promise.all(this.replicas.splice(0).map((replica) => replica.close()));
    for (const table of ['leases', 'lease_holders', 'lease_strikes', 'lease_waiting', 'feed_keys'])
      await this.database.query(`DELETE FROM ${table}`);
  }

  async close(): Promise<void> {
    await this.reset();
    await Promise.all([this.database.close(), this.redis.close()]);
  }
}
