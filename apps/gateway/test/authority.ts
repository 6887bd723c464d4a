import { type Metadata, Server, ServerCredentials, type ServiceDefinition, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import {
  acknowledgementKey,
  FIRST_PARTY_CALLER,
  feedSigner,
  type Invalidation,
  PROTO_FILE,
  REDIS,
  type RenewRequest,
  signInvalidations,
  type TokenSnapshot,
  usageKey,
} from '@latchkey/contracts';
import { newId, PROTO_OPTIONS } from '@latchkey/runtime';
import { hashSecret, mint } from '@latchkey/token-format';
import type { Redis } from 'ioredis';

const EVENTS_SECRET = Buffer.from('events-secret-of-the-tests-0123456789');
export const USAGE_SECRET = Buffer.from('usage-secret-of-the-tests-01234567890');

export interface Issued {
  readonly secret: string;
  readonly snapshot: TokenSnapshot;
}

/**
 * The token-service's gRPC API with tokens in memory, over real gRPC; the rest of these tests is real. It implements
 * the protocol (leases, log, keys) for the gateway's real verifier.
 */
export class Authority {
  readonly tokens = new Map<string, TokenSnapshot>();
  readonly lookups: string[] = [];
  /** Names of verifiers, one for each claim, in the order in which they came. */
  readonly names: string[] = [];
  /** Claims whose lease was released. */
  released = 0;
  /** False: renewals fail. */
  grantsLeases = true;
  /** The `authorization` that is accepted; undefined: any. */
  accepted: string | undefined;
  leaseMs = 10_000;
  /** Lookups wait until this is fulfilled. */
  lookupDelay: Promise<void> | undefined;
  address = '';
  readonly #server = new Server();
  readonly #log = newId();
  readonly #invalidations: Invalidation[] = [];
  readonly #signer = feedSigner(EVENTS_SECRET);
  /** Ids by claim. */
  readonly #verifiers = new Map<string, string>();
  #port = 0;
  #xid = 100;

  static async start(): Promise<Authority> {
    const authority = new Authority();
    const service = loadSync(PROTO_FILE, PROTO_OPTIONS)['latchkey.v1.Tokens'] as ServiceDefinition;
    const unimplemented = (_call: unknown, done: (error: object) => void) => done({ code: status.UNIMPLEMENTED });
    const unavailable = (_call: unknown, done: (error: object) => void) => done({ code: status.UNAVAILABLE });
    type Call<T> = { request: T; metadata: Metadata };
    const isRefused = ({ metadata }: Call<unknown>) =>
      authority.accepted !== undefined && metadata.get('authorization')[0] !== authority.accepted;
    const unauthenticated = (done: unknown) => (done as (error: object) => void)({ code: status.UNAUTHENTICATED });
    type Done = (error: null, response: object) => void;
    authority.#server.addService(service, {
      Verify: unimplemented,
      VerifyBatch: unimplemented,
      Lookup: async (call: Call<{ hash: string }>, done: Done) => {
        if (isRefused(call)) return unauthenticated(done);
        authority.lookups.push(call.request.hash);
        await authority.lookupDelay;
        const token = authority.tokens.get(call.request.hash) ?? null;
        done(null, { known: token !== null, token });
      },
      Renew: (call: Call<RenewRequest>, done: Done) => {
        if (isRefused(call)) return unauthenticated(done);
        if (authority.grantsLeases) done(null, authority.#renew(call.request));
        else unavailable(call, done as never);
      },
      Release: (_call: unknown, done: Done) => {
        authority.released++;
        done(null, { released: true });
      },
    });
    await authority.listen();
    return authority;
  }

  async listen(): Promise<void> {
    this.#port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : resolve(port),
      );
    });
    this.address = `127.0.0.1:${this.#port}`;
  }

  issue(snapshot: Partial<TokenSnapshot> = {}): Issued {
    const secret = mint(snapshot.kind === 'prj' ? 'prj' : 'pat');
    const token: TokenSnapshot = {
      id: newId(),
      kind: 'pat',
      ownerType: 'user',
      ownerId: newId(),
      project: '',
      denial: '',
      expiresAtMs: 0,
      scopes: ['demo:read'],
      allProjects: false,
      grants: [],
      ancestors: [],
      allowedIps: [],
      rateLimit: null,
      ...snapshot,
    };
    this.tokens.set(hashSecret(secret), token);
    return { secret, snapshot: token };
  }

  /** Revokes, and publishes the invalidation over Redis. */
  revoke(issued: Issued, redis: Redis): Promise<void> {
    return this.#deny(issued, 'revoked', redis);
  }

  /** Denies it as issued before an unsettled restore, and publishes an invalidation for which it is checked again. */
  restore(issued: Issued, redis: Redis): Promise<void> {
    return this.#deny(issued, 'restored', redis);
  }

  async #deny({ secret, snapshot }: Issued, denial: 'revoked' | 'restored', redis: Redis): Promise<void> {
    this.tokens.set(hashSecret(secret), { ...snapshot, denial });
    const invalidation: Invalidation = {
      id: newId(),
      kind: 'token',
      subject: snapshot.id,
      cut: denial === 'revoked',
      xid: String(++this.#xid),
    };
    this.#invalidations.push(invalidation);
    const event = signInvalidations(this.#signer, this.#log, [invalidation]);
    await redis.publish(REDIS.invalidations, JSON.stringify(event));
  }

  #renew({ claim, cursor, name }: RenewRequest) {
    if (!this.#verifiers.has(claim)) this.names.push(name);
    const verifierId = this.#verifiers.get(claim) ?? newId();
    this.#verifiers.set(claim, verifierId);
    const caller = FIRST_PARTY_CALLER;
    const known = cursor?.log === this.#log;
    return {
      leaseMs: this.leaseMs,
      cursor: { log: this.#log, xid: String(this.#xid + 1) },
      reset: !known,
      invalidations: known ? this.#invalidations.filter(({ xid }) => BigInt(xid) >= BigInt(cursor.xid)) : [],
      ackKey: acknowledgementKey(EVENTS_SECRET, { verifierId, caller, salt: new Uint8Array(32) }),
      verifierId,
      feedKeys: [this.#signer.publicKey],
      usageKey: usageKey(USAGE_SECRET, { verifierId, caller }),
      caller,
    };
  }

  close(): void {
    this.#server.forceShutdown();
  }
}
