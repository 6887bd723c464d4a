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
  const issued = await cluster.call<{ secret: string }>('POST', '/v1/tokens', {
    name: 'for the canary',
    scopes: ['tokens:write'],
  });
  token = issued.body.secret;
}, 120_000);
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  await cluster.close();
});

const gatewayUrls = () => cluster.gateways.map(({ opsUrl }) => `${opsUrl}/forward-auth`);

function context(more: Record<string, string> = {}): Promise<JobContext> {
  return world.contextWith({
    CANARY_TOKEN: token,
    CANARY_API_URL: cluster.tokenServices[0]!.url,
    CANARY_DOORS: gatewayUrls().join(','),
    ...more,
  });
}

async function figures({ metrics }: JobContext) {
  const text = await metrics.registry.metrics();
  const read = (name: string) => Number(new RegExp(`^${name}[^ ]* (\\S+)$`, 'm').exec(text)?.[1] ?? 0);
  return {
    stale: read('latchkey_revocation_stale_accepts_total'),
    proved: read('latchkey_canary_runs_total\\{outcome="proved"'),
    unreachable: read('latchkey_canary_runs_total\\{outcome="door_away"'),
    timed: read('latchkey_revocation_canary_seconds_count'),
  };
}

/** A gateway that accepts everything. */
async function acceptingGateway(): Promise<{ server: Server; url: string }> {
  const server = createServer((_, res) => res.writeHead(204).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` };
}

describe('the canary', () => {
  it('is off without a token, and rejects a configuration without gateways', async () => {
    const run = await context();
    const config = { ...run.config, CANARY_TOKEN: undefined };
    expect(await canary.step({ ...run, config })).toEqual({ done: 0, more: false });
    expect(() => checkTogether(world.config({ CANARY_TOKEN: token }))).toThrow('CANARY_DOORS');
  });

  it('proves that no gateway accepts a revoked token, and leaves no valid token behind', async () => {
    const run = await context();
    const before = await figures(run);
    expect(await canary.step(run)).toEqual({ done: 1, more: false });
    expect(await figures(run)).toEqual({ ...before, proved: before.proved + 1, timed: before.timed + 1 });
    const left = await cluster.database.query(`SELECT 1 FROM tokens WHERE name = 'canary' AND revoked_at IS NULL`);
    expect(left).toEqual([]);
  });

  it('counts every stale accept of a gateway', async () => {
    const { server, url } = await acceptingGateway();
    const run = await context({ CANARY_DOORS: [...gatewayUrls(), url].join(',') });
    const before = await figures(run);
    await canary.step(run);
    server.closeAllConnections();
    server.close();
    expect((await figures(run)).stale).toBe(before.stale + 10);
  });

  it('counts an unreachable gateway neither as proof nor as a stale accept', async () => {
    const run = await context({ CANARY_DOORS: [...gatewayUrls(), 'http://127.0.0.1:1/'].join(',') });
    const before = await figures(run);
    await canary.step(run);
    expect(await figures(run)).toEqual({ ...before, unreachable: before.unreachable + 1, timed: before.timed + 1 });
  });

  it('names the scope that its token lacks in the error, and not the token', async () => {
    const { body } = await cluster.call<{ secret: string }>('POST', '/v1/tokens', { name: 'weak', scopes: [] });
    const failed = canary.step(await context({ CANARY_TOKEN: body.secret }));
    await expect(failed).rejects.toThrow(/403 .*tokens:write/);
    await expect(failed).rejects.not.toThrow(body.secret);
  });
});
