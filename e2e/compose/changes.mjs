/** What an operator changes in an installation while it is used, by the commands of docs/changing.md. */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from '@latchkey/testing';

/**
 * @typedef {object} Place
 * @property {(...args: string[]) => Promise<string>} compose
 * @property {(line: string) => Promise<string>} sh
 * @property {(target: string) => Promise<any>} call
 * @property {string} config the folder that CONFIG_DIR names
 * @property {Record<string, string | undefined>} env of every command
 */

/** A gateway that is replaced remembers no token, so all are looked up again, and move to the current pepper. */
const ROLLOUT_GATEWAY = 'infra/docker/rollout.sh gateway';
const LAST = 'That was the last step.';

/** By how a line of `secrets rotate` begins: what is done. What nobody waits for here is said. @type {[string, (place: Place, line: string) => Promise<unknown>][]} */
const STEPS = [
  ['infra/docker/rollout.sh', ({ sh }, line) => sh(line)],
  ['docker compose exec', ({ sh }, line) => sh(line)],
  ['At once', ({ compose }) => compose('run', '--rm', 'migrate')],
  ['Wait ten seconds', () => sleep(10_000)],
  ['Wait a minute', () => sleep(60_000)],
  ['Wait for one lease', () => sleep(12_000)],
  ['Wait until nothing depends', dependsNoMore],
  // No code was sent by email, and the volumes go with the drill.
  ['Wait an hour', async () => undefined],
  ['Make a backup', async () => undefined],
  ['If it does not start', async () => undefined],
  ['Do not restart Redis', async () => undefined],
  ['Revocations wait', async () => undefined],
  ['Then run', async () => undefined],
  [LAST, async () => undefined],
];

/** @param {Place} place */
async function dependsNoMore({ sh, call }) {
  await sh(ROLLOUT_GATEWAY);
  await waitFor(
    async () => {
      const { peppers } = await call('/v1/system');
      const old = peppers.filter((/** @type {{ current: boolean }} */ { current }) => !current);
      return old.every(
        (/** @type {{ tokens: number, secondFactors: number, recoveryCodes: number }} */ one) =>
          one.tokens + one.secondFactors + one.recoveryCodes === 0,
      );
    },
    { timeoutMs: 180_000, what: 'tokens under the new pepper' },
  );
}

/** @param {Place} place @param {string} name */
async function rotated(place, name) {
  for (;;) {
    const printed = await place.compose('run', '--rm', 'secrets', 'rotate', name);
    const lines = printed.split('\n').flatMap((line) => (line.startsWith('  ') ? [line.trim()] : []));
    for (const line of lines) {
      const step = STEPS.find(([begin]) => line.startsWith(begin));
      if (!step) throw new Error(`nobody knows how to do this: ${line}`);
      await step[1](place, line);
    }
    if (lines.includes(LAST)) return;
  }
}

const SECRETS = [
  ...[
    'GATEWAY_RPC_SECRET',
    'JOBS_RPC_SECRET',
    'GATEWAY_PROOF_SECRET',
    'USAGE_SECRET',
    'TOKEN_PEPPERS',
    'EVENTS_SECRET',
  ],
  ...['EVENTS_SIGNING_KEY', 'JOBS_SEALING_KEY', 'AUDIT_SIGNING_KEY', 'RECEIPT_SIGNING_KEY', 'POSTGRES_PASSWORDS'],
  'REDIS_PASSWORD',
];

/** @param {Place} place @returns {{ name: string, change: () => Promise<unknown> }[]} */
export const changesOf = (place) => [
  {
    name: 'a setting changed',
    change: async () => {
      place.env['LOG_LEVEL'] = 'warn';
      await place.sh('infra/docker/rollout.sh token-service jobs gateway');
    },
  },
  {
    name: 'a route added',
    change: async () => {
      const hashes = async () => new Set((await place.call('/v1/verifiers')).items.map(hashOf).filter(Boolean));
      const before = await hashes();
      const file = path.join(place.config, 'routes.yaml');
      const more = 'routes: [{name: more, path: /more/*, upstream: "http://host.docker.internal:9", require: {}}, ';
      writeFileSync(file, readFileSync(file, 'utf8').replace('routes: [', more));
      await waitFor(
        async () => {
          const [hash, ...others] = await hashes();
          return hash !== undefined && others.length === 0 && !before.has(hash);
        },
        { timeoutMs: 60_000, what: 'the new routes at every gateway' },
      );
    },
  },
  ...SECRETS.map((name) => ({ name: `${name} rotated`, change: () => rotated(place, name) })),
];

const hashOf = (/** @type {{ routesHash: string | null }} */ { routesHash }) => routesHash;
