import type { IssuedToken, Project } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { ask, Person } from '../src/caller.js';
import { allReady, killAndAwaitReturn, pidsOf, whilePaused } from '../src/processes.js';
import { readyOf, type Stack, startStack } from '../src/stack.js';
import { openEvents } from '../src/streams.js';

/*
 * The guarantee, with real processes: when a revocation returns effective, no check that starts later accepts the
 * token, with any service down, slow or gone. A short lease, so that the longest wait is short too.
 */
const LEASE_MS = 3_000;
/** One lease, its drift allowance of a fifth, and time for a busy machine. */
const LONGEST_MS = LEASE_MS * 1.2 + 3_000;

let stack: Stack;
let admin: Person;
let project: Project;
beforeAll(async () => {
  // One process, so that freezing it freezes the gateway.
  stack = await startStack({ LEASE_MS: `${LEASE_MS}`, GATEWAY_PROCESSES: '1' });
  admin = await Person.admin(stack.place);
  project = await admin.project('Faults');
});
afterAll(() => stack.stop());

const use = (secret: string) =>
  ask(`${readyOf(stack.place).url}/demo/projects/${project.id}/documents`, 'GET', { token: secret });
const issue = (more: object = {}) => admin.issue({ scopes: ['demo:read'], ...more });
/** A token that the gateway has in memory. */
async function remembered(more: object = {}): Promise<IssuedToken> {
  const token = await issue(more);
  for (let i = 0; i < 3; i++) expect((await use(token.secret)).status).toBe(200);
  return token;
}
async function timedRevoke(id: string) {
  const at = performance.now();
  const effect = await admin.revoke(id);
  return { ...effect, ms: performance.now() - at };
}

it('holds while the gateway is frozen: the response waits for its lease, and it resumes with an empty memory', async () => {
  const token = await remembered();
  const { effective, receipt, ms } = await whilePaused(stack.place, 'gateway', async () => {
    // Straight to the token-service: the gateway is frozen.
    const at = performance.now();
    const { apiUrl } = readyOf(stack.place);
    const response = await ask<{ effective: boolean; receipt: { verifiers: { by: string }[] } }>(
      `${apiUrl}/v1/tokens/${token.id}`,
      'DELETE',
      { token: (await selfService()).secret },
    );
    return { ...response.body, ms: performance.now() - at };
  });
  expect(effective).toBe(true);
  expect(receipt.verifiers.map(({ by }) => by)).toContain('lease');
  expect(ms).toBeLessThan(LONGEST_MS);
  for (let i = 0; i < 20; i++) expect((await use(token.secret)).status).toBe(401);
});

/** A token by which tests revoke at the token-service itself. Issued once, before anything is frozen. */
let service: IssuedToken | undefined;
async function selfService(): Promise<IssuedToken> {
  service ??= await admin.issue({ scopes: ['tokens:write', 'tokens:read'] });
  return service;
}
beforeAll(async () => void (await selfService()));

it('holds with Redis frozen', async () => {
  const token = await remembered();
  const { effective, receipt, ms } = await whilePaused(stack.place, 'redis', () => timedRevoke(token.id));
  expect(effective).toBe(true);
  expect(receipt!.verifiers.every(({ by }) => by === 'cursor' || by === 'lease')).toBe(true);
  expect(ms).toBeLessThan(LONGEST_MS);
  expect((await use(token.secret)).status).toBe(401);
});

it('holds with Redis killed, and Redis comes back within 10 s', async () => {
  const token = await remembered();
  const back = killAndAwaitReturn(stack.place, 'redis');
  const { effective, ms } = await timedRevoke(token.id);
  expect(effective).toBe(true);
  expect(ms).toBeLessThan(LONGEST_MS);
  expect((await use(token.secret)).status).toBe(401);
  expect(await back).toBeLessThan(10_000);
});

it('loses nothing when Redis is emptied', async () => {
  const kept = await remembered();
  const revoked = await remembered();
  await admin.revoke(revoked.id);
  const redis = new Redis(readyOf(stack.place).redisUrl);
  await redis.flushall();
  redis.disconnect();
  expect((await use(kept.secret)).status).toBe(200);
  expect((await use(revoked.secret)).status).toBe(401);
  expect((await timedRevoke(kept.id)).effective).toBe(true);
  expect((await use(kept.secret)).status).toBe(401);
});

it('ignores forged invalidations and acknowledgements in Redis', async () => {
  const token = await remembered();
  const redis = new Redis(readyOf(stack.place).redisUrl);
  for (const channel of ['latchkey:v1:invalidations', 'latchkey:v1:acknowledgements']) {
    await redis.publish(
      channel,
      JSON.stringify({
        log: token.id,
        invalidation: { id: token.id, kind: 'everything', subject: '', cut: true, xid: '1' },
        mac: 'AAAA',
      }),
    );
    await redis.publish(channel, 'nonsense');
  }
  redis.disconnect();
  expect((await use(token.secret)).status).toBe(200);
});

it('answers from memory under the lease while the token-service is frozen, then 503, never 401', async () => {
  const known = await remembered();
  const fresh = await issue();
  await whilePaused(stack.place, 'tokenService', async () => {
    expect((await use(known.secret)).status).toBe(200);
    const unknown = await use(fresh.secret);
    expect(unknown.status).toBe(503);
    expect(unknown.headers.get('retry-after')).not.toBeNull();
    await waitFor(async () => (await use(known.secret)).status === 503, {
      timeoutMs: LEASE_MS + 5_000,
      intervalMs: 100,
      what: 'the end of the lease',
    });
    const refused = await use(known.secret);
    expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([503, null]);
  });
  await waitFor(async () => (await use(known.secret)).status === 200, {
    timeoutMs: 15_000,
    intervalMs: 100,
    what: 'the token being good again',
  });
  expect((await use(fresh.secret)).status).toBe(200);
});

it('ends an expiring token on time with the token-service and jobs frozen', async () => {
  const token = await remembered({ expiresInSeconds: 2 });
  const end = Date.parse(token.expiresAt!);
  await whilePaused(stack.place, 'tokenService', () =>
    whilePaused(stack.place, 'jobs', async () => {
      await waitFor(async () => (await use(token.secret)).status === 401, {
        timeoutMs: 5_000,
        intervalMs: 20,
        what: 'the denial',
      });
      expect(Date.now() - end).toBeLessThan(1_000);
    }),
  );
  await allReady(stack.place);
});

it.each(['tokenService', 'gateway', 'postgres'] as const)(
  'keeps a revocation over the death of %s, and never returns 401 for a valid token meanwhile',
  async (service) => {
    const good = await remembered();
    const gone = await remembered();
    expect((await timedRevoke(gone.id)).effective).toBe(true);
    const statuses = new Set<number>();
    let watching = true;
    const watcher = (async () => {
      while (watching) {
        // A service that is down refuses connections; that is no verdict on the token either.
        const [goodStatus, goneStatus] = await Promise.all(
          [good, gone].map(({ secret }) =>
            use(secret).then(
              ({ status }) => status,
              () => 0,
            ),
          ),
        );
        statuses.add(goodStatus!);
        expect(goneStatus).not.toBe(200);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
    const took = await killAndAwaitReturn(stack.place, service)
      .then(async (ms) => {
        await waitFor(async () => (await use(good.secret)).status === 200, {
          timeoutMs: 30_000,
          intervalMs: 100,
          what: 'the good token being accepted again',
        });
        return ms;
      })
      .finally(() => {
        watching = false;
      });
    await watcher;
    expect([...statuses].filter((status) => ![0, 200, 502, 503].includes(status))).toEqual([]);
    expect((await use(gone.secret)).status).toBe(401);
    expect(took).toBeLessThan(30_000);
    admin = await Person.admin(stack.place);
  },
);

it('cuts a stream within two leases when its token cannot be checked again', async () => {
  const token = await remembered({ scopes: ['demo:read', 'demo:write'] });
  const stream = await openEvents(`${readyOf(stack.place).url}/demo/projects/${project.id}/events`, {
    headers: { authorization: `Bearer ${token.secret}` },
  });
  await stream.next('hello');
  const at = performance.now();
  await whilePaused(stack.place, 'tokenService', async () => {
    const ended = await stream.ended;
    expect(ended.at - at).toBeLessThan(2 * LEASE_MS + 3_000);
  });
  await allReady(stack.place);
});

it('holds through a minute of load, revocations and kills at random', async () => {
  const until = performance.now() + 60_000;
  const services = ['redis', 'tokenService', 'gateway', 'jobs'] as const;
  const accepted: string[] = [];
  let revocations = 0;
  let turn = 0;
  const saboteur = (async () => {
    while (performance.now() < until) {
      const service = services[turn++ % services.length]!;
      if (turn % 2) await whilePaused(stack.place, service, () => new Promise((resolve) => setTimeout(resolve, 1_500)));
      else await killAndAwaitReturn(stack.place, service);
    }
  })();
  const worker = async () => {
    while (performance.now() < until) {
      // What a fault breaks on the way is retried with the next token.
      const token = await issue().catch(() => undefined);
      if (!token) continue;
      await use(token.secret).catch(() => undefined);
      const effect = await admin.revoke(token.id).catch(() => undefined);
      if (!effect?.effective) continue;
      revocations++;
      for (let i = 0; i < 5; i++) {
        const response = await use(token.secret).catch(() => undefined);
        if (response?.status === 200) accepted.push(token.id);
      }
    }
  };
  await Promise.all([saboteur, ...Array.from({ length: 4 }, worker)]);
  expect(accepted).toEqual([]);
  expect(revocations).toBeGreaterThan(20);
  expect(pidsOf(stack.place, 'gateway').length).toBeGreaterThan(0);
});
