/**
 * `npm run drills`: a token-service and two gateways as processes, on a PostgreSQL of their own. Tokens are revoked, people
 * disabled, rights narrowed after a backup; then the backup is restored in one way after the other, and every revoked token is
 * presented everywhere meanwhile. One line for each drill. `-- --only 2,9` runs those, `-- --tokens 10` revokes fewer.
 */
import { parseArgs } from 'node:util';
import { run } from './drill.mjs';
import { drills } from './drills.mjs';

const { values } = parseArgs({ options: { only: { type: 'string' }, tokens: { type: 'string', default: '50' } } });
const tokens = Number(values.tokens);
if (!Number.isSafeInteger(tokens) || tokens < 1) throw new Error('--tokens takes a whole number, 1 or more');
const wanted = values.only?.split(',');
const chosen = drills.filter(
  ({ id }) => !wanted || wanted.some((one) => id === one || id.replace(/[a-z]$/, '') === one),
);
const unknown = wanted?.filter((one) => !drills.some(({ id }) => id === one || id.replace(/[a-z]$/, '') === one)) ?? [];
if (unknown.length > 0) throw new Error(`there is no drill ${unknown.join(' or ')}`);

console.log(
  'drill | revived | good refused | old passwords and sessions accepted | whole after | what the operator saw',
);
let failed = 0;
for (const drill of chosen) {
  try {
    const outcome = await run(drill, tokens);
    const { revived, refused, oldCredentials, wholeS, seen, broken, checks } = outcome;
    const whole = wholeS === null ? 'never' : `${wholeS.toFixed(1)} s`;
    const counts = `${revived.length} of ${outcome.tokens} | ${refused.length} | ${oldCredentials.length} | ${whole}`;
    console.log(`${drill.id} ${drill.name} | ${counts} | ${seen} (${checks} checks)`);
    const details = [...revived.slice(0, 5), ...refused.slice(0, 5), ...oldCredentials, ...broken];
    for (const detail of details) console.log(`    BROKEN: ${detail}`);
    if (details.length > 0) failed++;
  } catch (error) {
    failed++;
    console.log(`${drill.id} ${drill.name} | not finished: ${error instanceof Error ? error.stack : error}`);
  }
}
console.log(failed ? `${failed} of ${chosen.length} drills broke a promise` : 'no drill broke a promise');
// As after `npm run faults`: Node can go on for ever, closing sockets that were reset.
process.exit(failed ? 1 : 0);
