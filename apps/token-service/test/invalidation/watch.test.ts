import { randomBytes } from 'node:crypto';
import { feedSigner, REDIS, type Receipt, signInvalidations } from '@latchkey/contracts';
import { createLogger, createRedis, newId } from '@latchkey/runtime';
import { faultyLink, waitFor } from '@latchkey/testing';
import type { TokenService } from '../../src/app.js';
import { issue, type Person, type World, world } from '../harness.js';
import { isOpen, type ThirdParty, targetOf, thirdParty } from './watching.js';

interface Revoked {
  effective: boolean;
  receipt: Receipt | null;
  pending: { id: string }[];
}

let w: World;
let second: TokenService;
let admin: Person;
const closing: (() => Promise<unknown>)[] = [];

// So long that nothing here is confirmed by the expiry of a lease, nor by a regular renewal.
const LEASE_MS = 60_000;

beforeAll(async () => {
  w = await world({ quiet: true, env: { LEASE_MS: String(LEASE_MS) } });
  second = await w.another();
  admin = await w.signIn();
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});
afterAll(() => w.close());

async function theirs(at: string): Promise<ThirdParty> {
  const { secret } = await issue(admin, { scopes: ['tokens:verify'] });
  const one = await thirdParty(at, secret);
  closing.push(() => one.close());
  await isOpen(one);
  return one;
}

const revoke = async (id: string, at: TokenService = w.service): Promise<Revoked> =>
  (await w.as({ cookie: admin.cookie! }, at).call<Revoked>(`POST /v1/tokens/${id}/revoke`, { body: {} })).body;

const howOf = ({ receipt }: Revoked, { verifier }: ThirdParty) =>
  receipt?.verifiers.find(({ id }) => id === verifier.id)?.by;

describe('a verifier with only an address and a token', () => {
  it.each([
    ['the revoking', () => w.service],
    ['another', () => second],
  ])('a third-party verifier with its stream at %s replica acknowledges a revocation', async (_, streamAt) => {
    const one = await theirs(targetOf(streamAt()));
    for (let i = 0; i < 5; i++) {
      const token = await issue(admin);
      expect(await one.accepts(token.secret)).toBe(true);
      const revoked = await revoke(token.id);
      expect(await one.accepts(token.secret)).toBe(false);
      expect([revoked.effective, howOf(revoked, one)]).toEqual([true, 'ack']);
    }
  });

  it('a third-party verifier confirms while Redis is unavailable: by acknowledgement at the waiting replica, else by renewing at once', async () => {
    const [near, far] = [await theirs(targetOf(w.service)), await theirs(targetOf(second))];
    await w.redis.kill();
    try {
      for (let i = 0; i < 5; i++) {
        const token = await issue(admin);
        for (const one of [near, far]) expect(await one.accepts(token.secret)).toBe(true);
        const revoked = await revoke(token.id);
        for (const one of [near, far]) expect(await one.accepts(token.secret)).toBe(false);
        expect(revoked.effective).toBe(true);
        expect(howOf(revoked, near)).toMatch(/^(ack|cursor)$/);
        expect(howOf(revoked, far)).toBe('cursor');
      }
    } finally {
      await w.redis.restart();
    }
    await waitFor(async () => howOf(await revoke((await issue(admin)).id), far) === 'ack');
  });

  it('a third-party verifier confirms while Redis hangs with open connections', async () => {
    const [near, far] = [await theirs(targetOf(w.service)), await theirs(targetOf(second))];
    w.redis.pause();
    try {
      for (let i = 0; i < 3; i++) {
        const token = await issue(admin);
        for (const one of [near, far]) expect(await one.accepts(token.secret)).toBe(true);
        const revoked = await revoke(token.id);
        for (const one of [near, far]) expect(await one.accepts(token.secret)).toBe(false);
        expect([revoked.effective, howOf(revoked, far)]).toEqual([true, 'cursor']);
      }
    } finally {
      w.redis.resume();
    }
  });

  it('a third-party verifier gets messages lost by Redis from the log', async () => {
    const link = await faultyLink(w.redis.url);
    const deaf = await w.another({ REDIS_URL: link.url(w.redis.url) });
    const one = await theirs(targetOf(deaf));
    link.stall();
    try {
      const token = await issue(admin);
      expect(await one.accepts(token.secret)).toBe(true);
      expect(howOf(await revoke(token.id), one)).toBe('cursor');
      expect(await one.accepts(token.secret)).toBe(false);
    } finally {
      link.heal();
      await link.close();
    }
  });

  it('a third-party verifier gets no message that the token-service has not signed', async () => {
    const one = await theirs(targetOf(second));
    const redis = createRedis(w.redis.url, 'test', createLogger('test', 'fatal'));
    closing.push(async () => redis.disconnect());
    await waitFor(() => redis.status === 'ready');
    const [row] = await w.database.query('SELECT log FROM invalidation_log');
    const invalidation = { id: newId(), kind: 'everything', subject: '', cut: true, xid: '5' } as const;
    const event = signInvalidations(feedSigner(randomBytes(32)), row!['log'] as string, [invalidation]);
    await redis.publish(REDIS.invalidations, JSON.stringify(event));
    await redis.publish(REDIS.invalidations, 'x');
    expect(howOf(await revoke((await issue(admin)).id), one)).toBe('ack');
    expect(Object.values(one.verifier.counters.messagesDropped).reduce((sum, n) => sum + n)).toBe(0);
  });
});

describe('a stream that ends', () => {
  it('before a server stops in order, the verifier opens another stream', async () => {
    const leaving = await w.another();
    const one = await theirs(targetOf(leaving, second));
    const token = await issue(admin);
    expect(await one.accepts(token.secret)).toBe(true);
    await leaving.stop();
    expect(one.interruptions).toEqual([]);
    expect(one.feed.isOpen).toBe(true);
    expect(howOf(await revoke(token.id), one)).toBe('ack');
    expect(await one.accepts(token.secret)).toBe(false);
  });

  it('a stream is reopened when its server comes back, and revocations made meanwhile are received', async () => {
    const first = await w.another();
    const one = await theirs(targetOf(first));
    const RPC_PORT = first.rpcAddress.split(':')[1]!;
    const token = await issue(admin);
    expect(await one.accepts(token.secret)).toBe(true);
    await first.stop();
    await waitFor(() => !one.feed.isOpen);
    const revoked = revoke(token.id);
    await w.another({ RPC_PORT });
    expect(howOf(await revoked, one)).toMatch(/^(ack|cursor)$/);
    expect(await one.accepts(token.secret)).toBe(false);
    expect(one.interruptions.length).toBeGreaterThan(0);
    await isOpen(one);
    expect(howOf(await revoke((await issue(admin)).id), one)).toBe('ack');
  });

  it("a stream whose connection was cut is reopened, and begins at the memory's cursor", async () => {
    const link = await faultyLink({ port: Number(second.rpcAddress.split(':')[1]) });
    closing.push(() => link.close());
    const one = await theirs(`127.0.0.1:${link.port}`);
    const token = await issue(admin);
    expect(await one.accepts(token.secret)).toBe(true);
    link.cut();
    await waitFor(() => !one.feed.isOpen);
    const revoked = revoke(token.id);
    link.heal();
    expect(howOf(await revoked, one)).toMatch(/^(ack|cursor)$/);
    expect(await one.accepts(token.secret)).toBe(false);
  });
});
