import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { GATEWAY_PROOF_HEADER, gatewayProofMatcher } from '@latchkey/contracts';
import { createLogger, firstParty, LiveSettings } from '@latchkey/runtime';
import { type TestRedis, testRedis, waitFor } from '@latchkey/testing';
import { type GatewayConfig, gatewayConfig, live, settings } from '../src/config.js';
import { type Gateway, startGateway } from '../src/start.js';
import { Authority } from './authority.js';
import { TestUpstream } from './stack.js';

/** What the ops port says. */
interface Readiness {
  readonly status: string;
  readonly checks: Record<string, string>;
  readonly warnings: Record<string, string>;
}

const BUSY = { timeoutMs: 30_000 };
const secret = () => randomBytes(24).toString('base64url');
const first = { GATEWAY_RPC_SECRET: secret(), GATEWAY_PROOF_SECRET: secret() };

let dir: string;
let redis: TestRedis;
let authority: Authority;
let api: TestUpstream;
let gateway: Gateway;
let logs = '';
const write = (name: string, text: string) => writeFileSync(path.join(dir, name), text);
beforeAll(async () => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-changing-'));
  [redis, authority, api] = [await testRedis(), await Authority.start(), new TestUpstream()];
  await api.listen();
  authority.leaseMs = 1_500;
  authority.accepted = firstParty(first.GATEWAY_RPC_SECRET);
  write('gateway.yaml', `routes: [{ name: a, path: /a, upstream: "${api.url}", public: true }]`);
  const env: NodeJS.ProcessEnv = {
    ...{ PORT: '0', OPS_PORT: '0', AUTHZ_PORT: '0', SHUTDOWN_DELAY_MS: '0', CONSOLE_DIR: dir },
    ...{ RPC_ADDRESS: authority.address, REDIS_URL: redis.url, API_URL: api.url },
    GATEWAY_CONFIG: path.join(dir, 'gateway.yaml'),
  };
  for (const [name, text] of Object.entries(first)) {
    write(name, text);
    env[`${name}_FILE`] = path.join(dir, name);
  }
  const logger = createLogger('gateway', 'info', {
    write: (line: string) => {
      logs += line;
    },
  });
  const load = (from: NodeJS.ProcessEnv) => gatewayConfig(from);
  const given = new LiveSettings<GatewayConfig>({ env, settings, load, live, logger });
  gateway = await startGateway(given.config, logger, undefined, given);
});
afterAll(async () => {
  await gateway.stop();
  authority.close();
  await Promise.all([api.close(), redis.close()]);
  rmSync(dir, { recursive: true, force: true });
});

const ready = async () => (await (await fetch(`http://127.0.0.1:${gateway.opsPort}/readyz`)).json()) as Readiness;
const errorsLogged = () => logs.split('the token-service does not accept GATEWAY_RPC_SECRET').length - 1;

it('says once that the token-service does not accept its credential, and when it is not ready for it', async () => {
  for (let time = 1; time <= 2; time++) {
    const next = secret();
    await waitFor(async () => (await ready()).status === 'ready', BUSY);
    authority.accepted = firstParty(next);
    await waitFor(async () => (await ready()).status === 'not ready', BUSY);
    expect((await ready()).checks['token-service']).toMatch(
      /^the token-service does not accept GATEWAY_RPC_SECRET: set/,
    );
    expect(errorsLogged()).toBe(time);
    write('GATEWAY_RPC_SECRET', `${next},${secret()}`);
    expect(await gateway.reload()).toHaveProperty('hash');
    await waitFor(async () => (await ready()).status === 'ready', BUSY);
    expect(errorsLogged()).toBe(time);
    expect(logs).not.toContain(next);
  }
  expect(await ready()).not.toHaveProperty('warnings');
});

it('proves with the secret that is in the file now that requests came through it', async () => {
  const proof = async () => {
    await fetch(`${gateway.url}/v1/session`);
    return api.lastHeader(GATEWAY_PROOF_HEADER)!;
  };
  expect(gatewayProofMatcher([first.GATEWAY_PROOF_SECRET])(await proof())).toBe(true);
  const next = secret();
  write('GATEWAY_PROOF_SECRET', next);
  await gateway.reload();
  expect(gatewayProofMatcher([next])(await proof())).toBe(true);
});

it('refuses to reload with a secret that is too short, and goes on with the previous one', async () => {
  write('GATEWAY_PROOF_SECRET', 'short');
  const response = await fetch(`http://127.0.0.1:${gateway.opsPort}/reload`, { method: 'POST' });
  expect([response.status, await response.json()]).toEqual([
    422,
    expect.objectContaining({
      code: 'reload_failed',
      detail: expect.stringMatching(/^GATEWAY_PROOF_SECRET_FILE: each secret must have at least 32 characters/),
    }),
  ]);
  expect((await ready()).warnings['settings']).toContain('GATEWAY_PROOF_SECRET_FILE');
});
