import { createHash } from 'node:crypto';
import {
  acknowledgementKey,
  type DenialReason,
  digestOf,
  feedSigner,
  type Invalidation,
  type LookupResponse,
  parseAcknowledgement,
  type ReleaseRequest,
  type RenewRequest,
  type RenewResponse,
  signInvalidations,
  type TokenSnapshot,
  usageKey,
  verifyAcknowledgement,
} from '@latchkey/contracts';
import { hashSecret, mint } from '@latchkey/token-format';
import type { Clock, Feed, Requirement, Stream, TokenSource, VerifierLimits } from '../src/index.js';
import { type RenewalRefused, Verifier } from '../src/index.js';

/** Three clocks that stand still until a test moves them. */
export class FakeClock implements Clock {
  #monotonicMs = 5_000;
  #suspendedMs = 100_000;
  #wallMs = Date.UTC(2030, 0, 1);
  #timers: { atMs: number; callback: () => void }[] = [];

  monotonicMs = () => this.#monotonicMs;
  uptimeMs = () => this.#monotonicMs + this.#suspendedMs;
  wallMs = () => this.#wallMs;

  after(ms: number, callback: () => void): () => void {
    const timer = { atMs: this.#monotonicMs + ms, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((t) => t !== timer);
    };
  }

  /** Advances all clocks together; timers fire in order, and pending promises run after each. */
  async pass(ms: number): Promise<void> {
    const endMs = this.#monotonicMs + ms;
    await flushPromises();
    for (;;) {
      const next = this.#timers.filter((t) => t.atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      this.#move((next?.atMs ?? endMs) - this.#monotonicMs);
      if (!next) return;
      this.#timers = this.#timers.filter((t) => t !== next);
      next.callback();
      await flushPromises();
    }
  }

  /** The process is paused: clocks advance, no timer fires. */
  stall(ms: number): void {
    this.#move(ms);
  }

  /** The machine is suspended: the monotonic clock stands still. */
  suspend(ms: number): void {
    this.#suspendedMs += ms;
    this.#wallMs += ms;
  }

  stepWall(ms: number): void {
    this.#wallMs += ms;
  }

  #move(ms: number): void {
    if (ms <= 0) return;
    this.#monotonicMs += ms;
    this.#wallMs += ms;
  }
}

/** Runs everything that waits for resolved promises. */
export async function flushPromises(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve();
}

/** A request that a test responds to later. */
export interface PendingCall<Q, A> {
  readonly request: Q;
  respond(value: A): Promise<void>;
  fail(): Promise<void>;
}

const EVENTS_SECRET = Buffer.from('a secret of tests, long enough for anything');
export const USAGE_SECRET = Buffer.from('a usage secret of tests, long enough');
export const CALLER = 'first-party';
export const LEASE_MS = 10_000;

let ids = 0;
/** A UUIDv7 in shape, different at every call. */
export const id = (): string => {
  const hex = createHash('sha256').update(`${++ids}`).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-7${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
};

/** A fake token-service: responds from its tables at once, or keeps requests for the test to respond to. */
export class Authority implements TokenSource, Feed {
  readonly tokens = new Map<string, TokenSnapshot>();
  readonly log: { invalidation: Invalidation; xid: number }[] = [];
  readonly logId = id();
  /** Ids of the invalidations whose digests were acknowledged with the right key. */
  readonly acknowledged: string[] = [];
  /** Ids of all invalidations ever pushed, by digest. */
  readonly #pushed = new Map<string, string>();
  signer = feedSigner(Buffer.from('a signing secret of tests'));
  /** Public keys that renewals carry; by default the signer's. */
  feedKeys: Uint8Array[] | undefined;
  /** The verifier's id; a test can assign another. */
  verifierId = id();
  /** Of the lease's row: a new row means a new key. */
  salt = Buffer.from('salt');
  readonly released: string[] = [];
  readonly renewals: RenewRequest[] = [];
  readonly lookups: string[] = [];
  pendingLookups: PendingCall<string, LookupResponse>[] = [];
  pendingRenewals: PendingCall<RenewRequest, RenewResponse>[] = [];
  /** Thrown at the next renewal. */
  rejection: RenewalRefused | undefined;
  holdLookups = false;
  holdRenewals = false;
  unavailable = false;
  leaseMs = LEASE_MS;
  /** The feed is down: invalidations are neither pushed nor acknowledged. */
  feedDown = false;
  /** A transaction open since then delays the cursor. */
  pinnedXid: number | undefined;
  xid = 100;
  #listeners = new Set<(text: string) => void>();

  async lookup(hash: string): Promise<LookupResponse> {
    this.lookups.push(hash);
    if (this.holdLookups) return hold(this.pendingLookups, hash);
    if (this.unavailable) throw new Error('unavailable');
    return this.read(hash);
  }

  async renew(request: RenewRequest): Promise<RenewResponse> {
    this.renewals.push(request);
    if (this.holdRenewals) return hold(this.pendingRenewals, request);
    if (this.unavailable) throw new Error('unavailable');
    const { rejection } = this;
    this.rejection = undefined;
    if (rejection) throw rejection;
    return this.grant(request);
  }

  async release({ verifierId }: ReleaseRequest): Promise<void> {
    if (this.unavailable) throw new Error('unavailable');
    this.released.push(verifierId);
  }

  subscribe(onMessage: (text: string) => void): () => void {
    this.#listeners.add(onMessage);
    return () => this.#listeners.delete(onMessage);
  }

  async acknowledge(text: string): Promise<void> {
    if (this.feedDown) throw new Error('unavailable');
    const event = parseAcknowledgement(text);
    if (!event || event.verifier !== this.verifierId || !verifyAcknowledgement(this.#ackKey, event))
      throw new Error('not authentic');
    for (const digest of event.digests) this.acknowledged.push(this.#pushed.get(digest) ?? 'unknown');
  }

  get #ackKey(): Uint8Array {
    return acknowledgementKey(EVENTS_SECRET, { verifierId: this.verifierId, caller: CALLER, salt: this.salt });
  }

  read(hash: string): LookupResponse {
    const token = this.tokens.get(hash);
    return { known: token !== undefined, token: token ? structuredClone(token) : null, log: this.logId };
  }

  grant(request: RenewRequest): RenewResponse {
    const reset = request.cursor?.log !== this.logId;
    const since = reset ? Number.POSITIVE_INFINITY : Number(request.cursor!.xid);
    return {
      leaseMs: this.leaseMs,
      cursor: { log: this.logId, xid: String(this.pinnedXid ?? this.xid) },
      reset,
      invalidations: this.log.filter(({ xid }) => xid >= since).map(({ invalidation }) => invalidation),
      ackKey: this.#ackKey,
      feedKey: new Uint8Array(0),
      verifierId: this.verifierId,
      feedKeys: this.feedKeys ?? [this.signer.publicKey],
      usageKey: usageKey(USAGE_SECRET, { verifierId: this.verifierId, caller: CALLER }),
      caller: CALLER,
      nonce: '',
      history: '',
    };
  }

  /** Commits an invalidation, and pushes it unless the feed is down. */
  invalidate(kind: Invalidation['kind'], subject = '', cut = false): Invalidation {
    const xid = this.xid++;
    const invalidation = { id: id(), kind, subject, cut, xid: String(xid) };
    this.log.push({ invalidation, xid });
    if (!this.feedDown) this.push(invalidation);
    return invalidation;
  }

  push(invalidation: Invalidation | readonly Invalidation[], log = this.logId, signer = this.signer): void {
    const all = [invalidation].flat() as Invalidation[];
    for (const one of all) this.#pushed.set(digestOf(log, one), one.id);
    this.deliver(JSON.stringify(signInvalidations(signer, log, all)));
  }

  deliver(text: string): void {
    for (const listener of this.#listeners) listener(text);
  }

  /** A token of a person, with the given fields. */
  issue(snapshot: Partial<TokenSnapshot> = {}): { secret: string; hash: string; snapshot: TokenSnapshot } {
    const secret = mint(snapshot.kind === 'prj' ? 'prj' : 'pat');
    const token: TokenSnapshot = {
      id: id(),
      kind: 'pat',
      ownerType: 'user',
      ownerId: id(),
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
    const hash = hashSecret(secret);
    this.tokens.set(hash, token);
    return { secret, hash, snapshot: token };
  }

  /** Marks the token and commits the invalidation. */
  revoke(hash: string): Invalidation {
    const token = this.tokens.get(hash)!;
    this.tokens.set(hash, { ...token, denial: 'revoked' });
    return this.invalidate('token', token.id, true);
  }
}

function hold<Q, A>(list: PendingCall<Q, A>[], request: Q): Promise<A> {
  return new Promise((resolve, reject) => {
    list.push({
      request,
      respond: async (value) => {
        resolve(value);
        await flushPromises();
      },
      fail: async () => {
        reject(new Error('unavailable'));
        await flushPromises();
      },
    });
  });
}

/** Records why it was cut. */
export class FakeStream implements Stream {
  readonly cuts: DenialReason[] = [];
  cut(reason: DenialReason): void {
    this.cuts.push(reason);
  }
}

export const READ = { scopes: ['demo:read'] };

/** A verifier with a lease, unless `start` is false. */
export async function world(options: { limits?: Partial<VerifierLimits>; start?: boolean } = {}) {
  const clock = new FakeClock();
  const authority = new Authority();
  const rejections: string[] = [];
  let claims = 0;
  const verifier = new Verifier({
    newClaim: () => `claim-${++claims}-of-the-tests-0123456789abcdef`,
    onIdentityRefused: (why) => rejections.push(why),
    name: 'test',
    clock,
    source: authority,
    feed: authority,
    limits: options.limits ?? {},
  });
  if (options.start !== false) await verifier.start();
  const outcome = async (secret: string, requirement: Requirement = READ): Promise<string> => {
    const verdict = await verifier.verify(secret, requirement);
    return verdict.allowed ? 'allowed' : verdict.reason;
  };
  return { clock, authority, verifier, outcome, rejections };
}
