/**
 * `npm run drills`: tokens are revoked, people disabled, rights narrowed after a backup; then the backup is restored in one way
 * after the other, and every revoked token is presented everywhere meanwhile.
 */
import { parseArgs } from 'node:util';
import { buildImage, openCompose } from './compose.mjs';
import { composeDrills } from './compose-drills.mjs';
import { run } from './drill.mjs';
import { drills } from './drills.mjs';
import { openPlace } from './place.mjs';

const HELP = `npm run drills -- [options]

A token-service and two gateways as processes, on a PostgreSQL of their own, which is put back, moved, recovered and failed over.
Run \`npm run build\` first.

  --compose       the services of docker-compose.yml instead, as project latchkey-drills, whose containers and volumes are
                  removed before and after each drill; other projects are left alone. Needs docker compose
  --only 2,9      these drills; 3 is 3a, 3b and 3c
  --tokens 10     revokes so many tokens; default 50
  --list          names the drills

With --compose, from the environment:
  COMPOSE         the program that stands for "docker compose"
  DOCKER          the program that stands for "docker"
  PORT            published at 127.0.0.1; default: a free one

Exits with 1 when a drill broke a promise.
`;

const { values } = parseArgs({
  options: {
    compose: { type: 'boolean', default: false },
    only: { type: 'string' },
    tokens: { type: 'string', default: '50' },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const tokens = Number(values.tokens);
if (!Number.isSafeInteger(tokens) || tokens < 1) throw new Error('--tokens takes a whole number, 1 or more');
/** @type {{ id: string, name: string, start: () => ReturnType<typeof run> }[]} */
const all = values.compose
  ? composeDrills.map((drill) => ({ ...drill, start: () => run(drill, tokens, openCompose) }))
  : drills.map((drill) => ({ ...drill, start: () => run(drill, tokens, openPlace) }));
const wanted = values.only?.split(',');
const isNamed = (/** @type {string} */ id, /** @type {string} */ one) => id === one || id.replace(/[a-z]$/, '') === one;
const chosen = all.filter(({ id }) => !wanted || wanted.some((one) => isNamed(id, one)));
const unknown = wanted?.filter((one) => !all.some(({ id }) => isNamed(id, one))) ?? [];
if (unknown.length > 0) throw new Error(`there is no drill ${unknown.join(' or ')}`);

const seconds = (/** @type {number | null} */ value, /** @type {string} */ otherwise) =>
  value === null ? otherwise : `${value.toFixed(1)} s`;

/** @returns {Promise<number>} how many drills broke a promise */
async function runAll() {
  if (values.compose) await buildImage();
  console.log(
    '| drill | revived | good refused | old passwords and sessions accepted | whole after | longest outage | what the operator saw |',
  );
  console.log('|---|---|---|---|---|---|---|');
  /** @type {string[]} */
  const broken = [];
  let failed = 0;
  for (const { id, name, start } of chosen) {
    const fails = (/** @type {string[]} */ details) => {
      failed++;
      broken.push(...details.map((detail) => `drill ${id}: ${detail}`));
    };
    try {
      const outcome = await start();
      const { revived, refused, oldCredentials, wholeS, outageS, seen, checks } = outcome;
      const times = `${seconds(wholeS, 'never')} | ${seconds(outageS, 'decided')}`;
      const counts = `${revived.length} of ${outcome.tokens} | ${refused.length} | ${oldCredentials.length}`;
      console.log(`| ${id} ${name} | ${counts} | ${times} | ${seen} (${checks} checks) |`);
      const details = [...revived.slice(0, 5), ...refused.slice(0, 5), ...oldCredentials, ...outcome.broken];
      if (details.length > 0) fails(details);
    } catch (error) {
      console.log(`| ${id} ${name} | not finished | | | | | |`);
      fails([error instanceof Error ? String(error.stack) : String(error)]);
    }
  }
  console.log('');
  for (const detail of broken) console.log(`BROKEN: ${detail}`);
  console.log(failed ? `${failed} of ${chosen.length} drills broke a promise` : 'no drill broke a promise');
  return failed;
}

if (values.help) console.log(HELP);
else if (values.list) for (const { id, name } of chosen) console.log(`${id} ${name}`);
else {
  const failed = await runAll();
  // As after `npm run faults`: Node can go on for ever, closing sockets that were reset.
  process.exit(failed ? 1 : 0);
}
