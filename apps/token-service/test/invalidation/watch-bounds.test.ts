import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import {
  acknowledgementKey,
  type Cursor,
  digestOf,
  feedSigner,
  type Invalidation,
  parseInvalidationEvent,
  REDIS,
  type Receipt,
  type RenewResponse,
  signAcknowledgement,
  signInvalidations,
  type TokensMethods,
  type WatchResponse,
} from '@latchkey/contracts';
import { bearer, type Caller, createLogger, createRedis, firstParty, newId, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { EVENTS_SIGNING_KEY, GATEWAY_RPC_SECRET, issue, type Person, type World, world } from '../harness.js';
import { newClaim, type RawStream, rawStream } from './watching.js';

interface Revoked {
  effective: boolean;
  receipt: Receipt | null;
  pending: { id: string }[];
}

let w: World;
let admin: Person;
const closing: (() => unknown)[] = [];

beforeAll(async () => {
  w = await world({ quiet: true, env: { LEASE_MS: '20000' } });
  admin = await w.signIn();
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  // Leases of one test must not delay the next.
  await w.database.query('DELETE FROM leases');
  await w.database.query('DELETE FROM lease_holders');
});
afterAll(() => w.close());

function callerOf(authorization: string): Caller<TokensMethods> {
  const made = tokensCaller({ address: w.service.rpcAddress, authorization, timeoutMs: 5_000 });
  closing.push(() => made.close());
  return made;
}

const renewal = (claim: string, cursor: Cursor | null = null) => ({
  verifierId: '',
  name: 'theirs',
  cursor,
  claim,
  version: '',
});

interface LeaseHolder {
  caller: Caller<TokensMethods>;
  claim: string;
  lease: RenewResponse;
  token: { id: string; secret: string };
}

/** A third party with a lease that does nothing by itself. */
async function leaseHolder(person = admin, scopes = ['tokens:verify']): Promise<LeaseHolder> {
  const token = await issue(person, { scopes });
  const caller = callerOf(bearer(token.secret));
  const claim = newClaim();
  return { caller, claim, lease: await caller.renew(renewal(claim)), token };
}

function open({ caller, lease }: LeaseHolder, over: object = {}): RawStream {
  const stream = rawStream(caller, { verifierId: lease.verifierId, cursor: lease.cursor, ...over });
  closing.unshift(() => stream.call.cancel());
  return stream;
}

const isOpen = (stream: RawStream) => waitFor(() => stream.responses.length > 0, { what: 'an open stream' });
const ended = (stream: RawStream) => waitFor(() => stream.ended, { timeoutMs: 20_000, what: 'the end of the stream' });
const receivedBy = ({ responses }: RawStream): Invalidation[] =>
  responses.flatMap((response) => invalidationsOf(response));
const parsed = new WeakMap<WatchResponse, Invalidation[]>();
function invalidationsOf(response: WatchResponse): Invalidation[] {
  const known = parsed.get(response);
  if (known) return known;
  const found = response.message ? parseInvalidationEvent(response.message)!.invalidations : [];
  parsed.set(response, found);
  return found;
}

function acknowledge(stream: RawStream, { lease }: LeaseHolder, invalidation: Invalidation, key = lease.ackKey): void {
  const digest = digestOf(lease.cursor!.log, invalidation);
  stream.send({ acknowledgement: JSON.stringify(signAcknowledgement(key, lease.verifierId, [digest])) });
}

const revoke = async (id: string, wait?: number) =>
  (
    await admin.call<Revoked>(`POST /v1/tokens/${id}/revoke`, {
      body: {},
      ...(wait !== undefined && { headers: { prefer: `wait=${wait}` } }),
    })
  ).body;

async function counted(event: string): Promise<number> {
  const text = await (await fetch(`${w.service.opsUrl}/metrics`)).text();
  return Number(new RegExp(`latchkey_watch_events_total\\{event="${event}",[^}]*\\} (\\d+)`).exec(text)![1]);
}

describe('an open stream', () => {
  it('an open stream confirms nothing by itself, nor do acknowledgements with another key', async () => {
    const one = await leaseHolder();
    const stream = open(one);
    await isOpen(stream);
    const token = await issue(admin);
    expect((await revoke(token.id, 0)).pending.map(({ id }) => id)).toEqual([one.lease.verifierId]);
    const received = await waitFor(() => receivedBy(stream).find(({ subject }) => subject === token.id));
    const salt = new Uint8Array(32);
    const wrong = acknowledgementKey(new Uint8Array(32), { verifierId: one.lease.verifierId, caller: 'x', salt });
    acknowledge(stream, one, received, wrong);
    await waitFor(async () => (await counted('acknowledgements')) > 0);
    expect((await revoke(token.id, 0)).effective).toBe(false);
    acknowledge(stream, one, received);
    expect(await revoke(token.id)).toMatchObject({ effective: true, receipt: { verifiers: [{ by: 'ack' }] } });
  });

  it('a stream begins with the log past its cursor, in the same signed messages as over Redis', async () => {
    const one = await leaseHolder();
    const token = await issue(admin);
    await revoke(token.id, 0);
    const stream = open(one);
    const received = await waitFor(() => receivedBy(stream).find(({ subject }) => subject === token.id));
    acknowledge(stream, one, received);
    expect((await revoke(token.id)).receipt!.verifiers).toMatchObject([{ id: one.lease.verifierId, by: 'ack' }]);
  });

  it.each([
    ['no cursor', () => null],
    ['a cursor of another log', ({ cursor }: RenewResponse) => ({ log: newId(), xid: cursor!.xid })],
    [
      'a cursor of the future',
      ({ cursor }: RenewResponse) => ({ ...cursor!, xid: `${BigInt(cursor!.xid) + 999_999n}` }),
    ],
  ])('a stream with %s begins with a request to renew', async (_what, cursorOf) => {
    const one = await leaseHolder();
    const stream = open(one, { cursor: cursorOf(one.lease) });
    await waitFor(() => stream.responses.length >= 2);
    expect(stream.responses[1]).toEqual({ message: '', renew: true, closing: false });
  });

  it('a stream that is read too slowly gets a request to renew instead of the skipped messages', async () => {
    const one = await leaseHolder(await w.member('slow', 'admin'));
    const other = await leaseHolder();
    const [slow, fast] = [open(one), open(other)];
    await Promise.all([isOpen(slow), isOpen(fast)]);
    slow.call.pause();
    const redis = createRedis(w.redis.url, 'test', createLogger('test', 'fatal'));
    closing.push(() => redis.disconnect());
    await waitFor(() => redis.status === 'ready');
    const signer = feedSigner(Buffer.from(EVENTS_SIGNING_KEY));
    const count = 1_900;
    for (let i = 0; i < count; i++) {
      const invalidation = { id: newId(), kind: 'token', subject: newId(), cut: true, xid: '5' } as const;
      const event = signInvalidations(signer, one.lease.cursor!.log, [invalidation]);
      // No more than are processed in a second.
      if (i % 40 === 39) await sleep(100);
      await redis.publish(REDIS.invalidations, JSON.stringify(event));
    }
    await waitFor(() => receivedBy(fast).length >= count);
    expect(fast.responses.some(({ message, renew }) => renew && message === '')).toBe(false);
    slow.call.resume();
    await waitFor(() => slow.responses.some(({ message, renew }) => renew && message === ''));
    expect(receivedBy(slow).length).toBeLessThan(count);
    // After that it continues.
    const token = await issue(admin);
    const revoking = revoke(token.id);
    for (const [stream, holder] of [
      [slow, one],
      [fast, other],
    ] as const)
      acknowledge(stream, holder, await waitFor(() => receivedBy(stream).find(({ subject }) => subject === token.id)));
    expect((await revoking).receipt!.verifiers.map(({ by }) => by)).toEqual(['ack', 'ack']);
  }, 120_000);
});

describe('the end of a stream', () => {
  it('a stream ends when its token is revoked and its verifier has acknowledged that', async () => {
    const one = await leaseHolder();
    const stream = open(one);
    await isOpen(stream);
    const revoking = revoke(one.token.id);
    acknowledge(stream, one, await waitFor(() => receivedBy(stream).find(({ subject }) => subject === one.token.id)));
    expect((await revoking).receipt!.verifiers).toMatchObject([{ id: one.lease.verifierId, by: 'ack' }]);
    expect((await ended(stream)).code).toBe(status.UNAUTHENTICATED);
    expect((await ended(open(one))).code).toBe(status.UNAUTHENTICATED);
  });

  it('a stream ends when its token is revoked, also without an acknowledgement', async () => {
    const one = await leaseHolder();
    const stream = open(one);
    await isOpen(stream);
    await revoke(one.token.id, 0);
    expect((await ended(stream)).code).toBe(status.UNAUTHENTICATED);
  });

  it.each([
    ['is disabled', { disabled: true }],
    ['loses tokens:verify', { scopes: [] }],
    ['is bound to other addresses', { allowedIps: ['203.0.113.0/24'] }],
  ])('a stream ends when its token %s', async (_what, body) => {
    const one = await leaseHolder();
    const stream = open(one);
    await isOpen(stream);
    await admin.call(`PATCH /v1/tokens/${one.token.id}`, { body, headers: { prefer: 'wait=0' } });
    expect((await ended(stream)).code).toBe(status.UNAUTHENTICATED);
  });

  it('a stream ends when an ancestor of its token is revoked, or its owner disabled', async () => {
    // Its lease has ended too, whichever is noticed first.
    const ENDS = [status.UNAUTHENTICATED, status.FAILED_PRECONDITION];
    const person = await w.member('Owner of verifiers', 'admin');
    const root = await issue(person, { scopes: ['tokens:verify', 'tokens:write'] });
    const child = await leaseHolder(w.bearer(root.secret));
    const own = await leaseHolder(person);
    const streams = [open(child), open(own)] as const;
    for (const stream of streams) await isOpen(stream);
    await revoke(root.id, 0);
    expect(ENDS).toContain((await ended(streams[0])).code);
    expect(streams[1].ended).toBe(undefined);
    await admin.call(`PATCH /v1/users/${person.user.id}`, {
      body: { disabled: true },
      headers: { prefer: 'wait=0' },
    });
    expect(ENDS).toContain((await ended(streams[1])).code);
  });

  it('a stream ends when its token expires', async () => {
    const token = await issue(admin, { scopes: ['tokens:verify'], expiresInSeconds: 4 });
    const caller = callerOf(bearer(token.secret));
    const lease = await caller.renew(renewal(newClaim()));
    const stream = open({ caller, claim: '', lease, token });
    await isOpen(stream);
    expect((await ended(stream)).code).toBe(status.UNAUTHENTICATED);
  });

  it('a stream ends when an administrator ends its lease, or it is released', async () => {
    const [one, other] = [await leaseHolder(), await leaseHolder()];
    const streams = [open(one), open(other)] as const;
    for (const stream of streams) await isOpen(stream);
    expect((await admin.call(`POST /v1/verifiers/${one.lease.verifierId}/end`)).status).toBe(200);
    await other.caller.release({ verifierId: other.lease.verifierId, claim: other.claim });
    for (const stream of streams) expect((await ended(stream)).code).toBe(status.FAILED_PRECONDITION);
  });

  it('a stream ends when its verifier opens another', async () => {
    const one = await leaseHolder();
    const first = open(one);
    await isOpen(first);
    const next = open(one);
    await isOpen(next);
    expect((await ended(first)).code).toBe(status.ABORTED);
    expect(next.ended).toBe(undefined);
  });

  it('a stream does not end with invalidations of others, or with a replay', async () => {
    const one = await leaseHolder();
    const stream = open(one);
    await isOpen(stream);
    const token = await issue(admin);
    await revoke(token.id, 0);
    await admin.call(`PATCH /v1/tokens/${one.token.id}`, {
      body: { scopes: ['tokens:verify'], allowedIps: ['127.0.0.0/8'] },
      headers: { prefer: 'wait=0' },
    });
    const redis = createRedis(w.redis.url, 'test', createLogger('test', 'fatal'));
    closing.push(() => redis.disconnect());
    await waitFor(() => redis.status === 'ready');
    const invalidation = { id: newId(), kind: 'token', subject: one.token.id, cut: true, xid: '5' } as const;
    const event = signInvalidations(feedSigner(Buffer.from(EVENTS_SIGNING_KEY)), one.lease.cursor!.log, [invalidation]);
    await redis.publish(REDIS.invalidations, JSON.stringify(event));
    await waitFor(() => receivedBy(stream).some(({ id }) => id === invalidation.id));
    const last = await issue(admin);
    await revoke(last.id, 0);
    await waitFor(() => receivedBy(stream).some(({ subject }) => subject === last.id));
    expect(stream.ended).toBe(undefined);
  });
});

describe('rejected streams', () => {
  it.each([
    ['verifierId must be a lower-case UUID', { verifierId: 'x' }],
    ['cursor.log must be a lower-case UUID', { cursor: { log: 'x', xid: '1' } }],
    ['cursor.xid must be a transaction id', { cursor: { log: '01890000-0000-7000-8000-000000000000', xid: '-1' } }],
  ])('no stream is opened for a malformed request: %s', async (message, over) => {
    expect(await ended(open(await leaseHolder(), over))).toMatchObject({
      code: status.INVALID_ARGUMENT,
      details: message,
    });
  });

  it('no stream is opened without a lease, or for the verifier of another caller', async () => {
    const [one, other] = [await leaseHolder(), await leaseHolder()];
    expect((await ended(open(one, { verifierId: newId() }))).code).toBe(status.FAILED_PRECONDITION);
    expect((await ended(open(one, { verifierId: other.lease.verifierId }))).code).toBe(status.PERMISSION_DENIED);
    const gateway = callerOf(firstParty(GATEWAY_RPC_SECRET));
    const own = await gateway.renew(renewal(newClaim()));
    expect((await ended(open(one, { verifierId: own.verifierId }))).code).toBe(status.PERMISSION_DENIED);
    await one.caller.release({ verifierId: one.lease.verifierId, claim: one.claim });
    expect((await ended(open(one))).code).toBe(status.FAILED_PRECONDITION);
  });

  it('a stream without a first request is closed', async () => {
    const { caller } = await leaseHolder();
    const stream = rawStream(caller);
    expect((await ended(stream)).code).toBe(status.DEADLINE_EXCEEDED);
  });
});
