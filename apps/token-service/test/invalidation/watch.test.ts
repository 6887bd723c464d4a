import type { Receipt } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
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

// So long that nothing here is confirmed by the end of a lease, nor by a renewal that was due anyway.
const LEASE_MS = 60_000;

beforeAll(async () => {
  w = await world({ env: { LEASE_MS: String(LEASE_MS) } });
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

describe('a verifier with nothing but an address and a token', () => {
  it('hears of a revocation at its own replica, and acknowledges it', async () => {
    const one = await theirs(targetOf(w.service));
    for (let i = 0; i < 5; i++) {
      const token = await issue(admin);
      expect(await one.accepts(token.secret)).toBe(true);
      const revoked = await revoke(token.id);
      expect(await one.accepts(token.secret)).toBe(false);
      expect([revoked.effective, howOf(revoked, one)]).toEqual([true, 'ack']);
    }
  });

  it('hears of a revocation at another replica, and acknowledges it', async () => {
    const one = await theirs(targetOf(second));
    for (let i = 0; i < 5; i++) {
      const token = await issue(admin);
      expect(await one.accepts(token.secret)).toBe(true);
      const revoked = await revoke(token.id);
      expect(await one.accepts(token.secret)).toBe(false);
      expect([revoked.effective, howOf(revoked, one)]).toEqual([true, 'ack']);
    }
  });

  it('confirms while Redis is away: by acknowledgement at the replica that waits, else by renewing at once', async () => {
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
});
