import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Cluster, startCluster } from '@latchkey/testing';
import { canary } from '../src/canary/canary.job.js';
import { checkTogether } from '../src/config.js';
import type { JobContext } from '../src/job.js';
import { World } from './world.js';

let cluster: Cluster;
let world: World;
let token: string;
beforeAll(async () => {
  [cluster, world] = await Promise.all([startCluster({ gateways: 2, leaseMs: 1_000 }), World.start()]);
  const made = await cluster.call<{ secret: string }>('POST', '/v1/tokens', {
    name: 'for the canary',
    scopes: ['tokens:write'],
  });
  token = made.body.secret;
}, 120_000);
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  await cluster.close();
});

const doors = () => cluster.gateways.map(({ opsUrl }) => `${opsUrl}/forward-auth`);

function context(more: Record<string, string> = {}): Promise<JobContext> {
  return world.contextWith({
    CANARY_TOKEN: token,
    CANARY_API_URL: cluster.tokenServices[0]!.url,
    CANARY_DOORS: doors().join(','),
    ...more,
  });
}

async function figures({ metrics }: JobContext) {
  const text = await metrics.registry.metrics();
  const read = (name: string) => Number(new RegExp(`^${name}[^ ]* (\\S+)$`, 'm').exec(text)?.[1] ?? 0);
  return {
    stale: read('latchkey_revocation_stale_accepts_total'),
    proved: read('latchkey_canary_runs_total\\{outcome="proved"'),
    away: read('latchkey_canary_runs_total\\{outcome="door_away"'),
    timed: read('latchkey_revocation_canary_seconds_count'),
  };
}

/** A gateway that has lost its memory of what revocation means. */
async function open(): Promise<{ server: Server; url: string }> {
  const server = createServer((_, res) => res.writeHead(204).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` };
}

describe('the canary', () => {
  it('is off without a token of its own, and refused without doors', async () => {
    const run = await context();
    const config = { ...run.config, CANARY_TOKEN: undefined };
    expect(await canary.step({ ...run, config })).toEqual({ done: 0, more: false });
    expect(() => checkTogether(world.config({ CANARY_TOKEN: token }))).toThrow('CANARY_DOORS');
  });

  it('proves that a revoked token is accepted nowhere, and leaves nothing that works behind', async () => {
    const run = await context();
    const before = await figures(run);
    expect(await canary.step(run)).toEqual({ done: 1, more: false });
    expect(await figures(run)).toEqual({ ...before, proved: before.proved + 1, timed: before.timed + 1 });
    const left = await cluster.database.query(`SELECT 1 FROM tokens WHERE name = 'canary' AND revoked_at IS NULL`);
    expect(left).toEqual([]);
  });

  it('counts every acceptance by a gateway that goes on accepting', async () => {
    const { server, url } = await open();
    const run = await context({ CANARY_DOORS: [...doors(), url].join(',') });
    const before = await figures(run);
    await canary.step(run);
    server.closeAllConnections();
    server.close();
    expect((await figures(run)).stale).toBe(before.stale + 10);
  });

  it('takes a gateway that is away for no proof, and for no stale accept either', async () => {
    const run = await context({ CANARY_DOORS: [...doors(), 'http://127.0.0.1:1/'].join(',') });
    const before = await figures(run);
    await canary.step(run);
    expect(await figures(run)).toEqual({ ...before, away: before.away + 1, timed: before.timed + 1 });
  });

  it('says which right its token lacks, and not the token', async () => {
    const { body } = await cluster.call<{ secret: string }>('POST', '/v1/tokens', { name: 'weak', scopes: [] });
    const failed = canary.step(await context({ CANARY_TOKEN: body.secret }));
    await expect(failed).rejects.toThrow(/403 .*tokens:write/);
    await expect(failed).rejects.not.toThrow(body.secret);
  });
});
