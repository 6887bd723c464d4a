import { EventEmitter } from 'node:events';
import type { RenewRequest, RenewResponse } from '@latchkey/contracts';
import { createLogger } from '@latchkey/runtime';
import { hashSecret, mint } from '@latchkey/token-format';
import { BUSY_CHECKS, KEPT_MS, OwnVerifierService } from '../src/verification/own-verifier.service.js';

const CURSOR = { log: '019a0000-0000-7000-8000-000000000001', xid: '5' };
const TOKEN = {
  id: '019a0000-0000-7000-8000-000000000002',
  kind: 'pat' as const,
  ownerType: 'user' as const,
  ownerId: '019a0000-0000-7000-8000-000000000003',
  project: '',
  denial: '',
  expiresAtMs: 0,
  scopes: [],
  allProjects: false,
  grants: [],
  ancestors: [],
  allowedIps: [],
  rateLimit: null,
  rates: [],
};

/** The service with a clock that stands still between `pass`, and an authority that knows one token. */
function started() {
  let nowMs = 1_000_000;
  const timers = new Set<{ atMs: number; callback: () => void }>();
  const clock = {
    monotonicMs: () => nowMs,
    uptimeMs: () => nowMs,
    wallMs: () => nowMs,
    after: (ms: number, callback: () => void) => {
      const timer = { atMs: nowMs + ms, callback };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
  };
  const settled = async () => {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  const pass = async (ms: number) => {
    const untilMs = nowMs + ms;
    for (;;) {
      const [next] = [...timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs);
      if (!next) break;
      timers.delete(next);
      nowMs = next.atMs;
      next.callback();
      await settled();
    }
    nowMs = untilMs;
  };
  const seen = { renewals: 0, released: 0, lookups: 0 };
  const secret = mint('pat');
  const authority = { isAvailable: true, answersAfterMs: 0 };
  const watch = Object.assign(new EventEmitter(), {
    writableLength: 0,
    write: () => true,
    end: () => undefined,
    cancel: () => undefined,
  });
  const invalidations = {
    renewHere: async (request: RenewRequest): Promise<RenewResponse> => {
      if (!authority.isAvailable) throw new Error('PostgreSQL is unavailable');
      seen.renewals++;
      return {
        leaseMs: 10_000,
        cursor: CURSOR,
        reset: request.cursor === null,
        invalidations: [],
        ackKey: new Uint8Array(32),
        feedKey: new Uint8Array(0),
        verifierId: '019a0000-0000-7000-8000-000000000004',
        feedKeys: [],
        usageKey: new Uint8Array(32),
        caller: 'first-party',
        nonce: '019a0000-0000-7000-8000-000000000005',
        history: 'h',
      };
    },
    releaseHere: async () => void seen.released++,
    watchHere: () => watch,
  };
  const snapshots = {
    lookup: async (hash: string) => {
      seen.lookups++;
      const { answersAfterMs } = authority;
      if (answersAfterMs > 0) {
        await new Promise<void>((resolve) => clock.after(answersAfterMs, resolve));
        throw new Error('PostgreSQL has not answered');
      }
      const known = hash === hashSecret(secret);
      return { known, token: known ? TOKEN : null, log: CURSOR.log };
    },
  };
  const service = new OwnVerifierService(
    invalidations as never,
    snapshots as never,
    { RPC_PORT: 1, TOKEN_PREFIX: 'lk' },
    createLogger('test', 'fatal'),
    clock,
  );
  service.onApplicationBootstrap();
  const busySecond = async () => {
    for (let i = 0; i < BUSY_CHECKS; i++) service.noteCheck('database');
    await pass(1_000);
  };
  const fill = () => service.verdictOf(secret, { scopes: [] });
  return { service, secret, seen, authority, pass, busySecond, fill };
}

test('a token-service that is rarely asked to verify takes no lease', async () => {
  const { service, seen, pass, secret, fill } = started();
  for (let i = 0; i < 10; i++) {
    for (let calls = 0; calls < BUSY_CHECKS - 1; calls++) service.noteCheck('database');
    await pass(1_000);
  }
  expect(await fill()).toBeUndefined();
  expect(service.recall(secret, { scopes: [] })).toBeUndefined();
  expect(seen).toEqual({ renewals: 0, released: 0, lookups: 0 });
  await service.stop();
});

test('a lease is taken after a busy second, and released after a minute without one', async () => {
  const { service, seen, pass, busySecond, secret, fill } = started();
  await busySecond();
  expect(await fill()).toMatchObject({ allowed: true });
  expect(service.recall(secret, { scopes: [] })).toMatchObject({ allowed: true });
  await pass(KEPT_MS - 2_000);
  await busySecond();
  await pass(KEPT_MS - 2_000);
  expect(service.recall(secret, { scopes: [] })).toMatchObject({ allowed: true });
  expect(seen).toMatchObject({ released: 0, lookups: 1 });
  await pass(3_000);
  expect(service.recall(secret, { scopes: [] })).toBeUndefined();
  expect(seen.released).toBe(1);
  const { renewals } = seen;
  await pass(KEPT_MS);
  expect(seen.renewals).toBe(renewals);
  await busySecond();
  expect(seen.renewals).toBeGreaterThan(renewals);
  expect(service.recall(secret, { scopes: [] })).toBeUndefined();
  await service.stop();
});

test('nothing is recalled once the lease has expired without a renewal', async () => {
  const { service, authority, pass, busySecond, secret, fill } = started();
  await busySecond();
  await fill();
  authority.isAvailable = false;
  await pass(8_000);
  expect(service.recall(secret, { scopes: [] })).toMatchObject({ allowed: true });
  await pass(10_000);
  expect(service.recall(secret, { scopes: [] })).toBeUndefined();
  await service.stop();
});

test('PostgreSQL that does not answer is read once for a check, and the check is unavailable', async () => {
  const { service, secret, seen, authority, pass, busySecond } = started();
  await busySecond();
  await pass(0);
  authority.answersAfterMs = 12_000;
  const outcome = service.verdictOf(secret, { scopes: [] }).catch((error: unknown) => error);
  for (let i = 0; i < 12; i++) await pass(1_000);
  expect(await outcome).toMatchObject({ code: 'unavailable' });
  expect(seen.lookups).toBe(1);
  await service.stop();
});

test('stopping ends the use of memory at once, and a stopped service takes no lease again', async () => {
  const { service, seen, busySecond, secret, fill } = started();
  await busySecond();
  await fill();
  const stopped = service.stop();
  expect(service.recall(secret, { scopes: [] })).toBeUndefined();
  await stopped;
  expect(seen.released).toBe(1);
  const { renewals } = seen;
  await busySecond();
  expect(seen.renewals).toBe(renewals);
});
