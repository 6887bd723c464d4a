import { parseArgs } from 'node:util';
import { BENIGN } from './restores/faults.js';
import { simulateRestores } from './restores/world.js';
import { STEPS, simulate } from './world.js';

/**
 * `npm run simulate -- --seed N --steps M [--seeds K] [--history] [--restores [--benign]]`: runs K worlds (default 1) from seed N
 * on, and prints the history of the first that breaks an invariant. Exits with code 1 when one does. `--restores`: worlds of a
 * database that is put back, and its ledgers; `--benign`: with one ledger and only faults after which nobody has to decide.
 */
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    steps: { type: 'string', default: String(STEPS) },
    history: { type: 'boolean', default: false },
    restores: { type: 'boolean', default: false },
    benign: { type: 'boolean', default: false },
  },
});
const wholeNumber = (name: 'seed' | 'seeds' | 'steps'): number => {
  const number = Number(values[name]);
  if (!Number.isSafeInteger(number) || number < (name === 'seed' ? 0 : 1))
    throw new Error(`--${name} must be a whole number, not ${values[name]}`);
  return number;
};
const first = wholeNumber('seed');
const count = wholeNumber('seeds');
const steps = wholeNumber('steps');
const startedAt = performance.now();
const sums = { checks: 0, allowed: 0, effective: 0, faults: 0, events: 0, simulatedMs: 0 };
const by: Record<string, number> = {};
if (values.restores) {
  const totals: Record<string, number> = {};
  const world = values.benign ? { faults: BENIGN, isShared: true } : {};
  for (let seed = first; seed < first + count && process.exitCode !== 1; seed++) {
    const outcome = await simulateRestores({ seed, history: values.history, ...world });
    for (const [name, times] of Object.entries(outcome.counts)) totals[name] = (totals[name] ?? 0) + times;
    if (outcome.violation === undefined && !values.history) continue;
    const { history } = await simulateRestores({ seed, history: true, ...world });
    console.log(history.join('\n'));
    if (outcome.violation === undefined) continue;
    console.log(`\nseed ${seed} broke an invariant: ${outcome.violation}`);
    process.exitCode = 1;
  }
  console.log(
    Object.entries(totals)
      .map(([name, times]) => `${times} ${name}`)
      .join(', '),
  );
  process.exit();
}
let run = 0;
for (let seed = first; seed < first + count; seed++) {
  const outcome = await simulate({ seed, steps, history: values.history });
  run++;
  for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += outcome[name];
  for (const [how, times] of Object.entries(outcome.by)) by[how] = (by[how] ?? 0) + times;
  if (outcome.violation === undefined && !values.history) continue;
  const { history } = await simulate({ seed, steps, history: true });
  console.log(history.join('\n'));
  if (outcome.violation === undefined) continue;
  console.log(`\nseed ${seed} broke an invariant: ${outcome.violation}`);
  console.log(`again: npm run simulate -- --seed ${seed} --steps ${steps}`);
  process.exitCode = 1;
  break;
}
const seconds = (performance.now() - startedAt) / 1000;
const confirmed = Object.entries(by).map(([how, times]) => `${times} by ${how}`);
console.log(
  `${run} seeds in ${seconds.toFixed(1)} s (${(run / seconds).toFixed(0)} a second): ${sums.events} events over ` +
    `${(sums.simulatedMs / 1000).toFixed(0)} simulated seconds, ${sums.faults} faults, ${sums.checks} checks ` +
    `(${sums.allowed} allowed), ${sums.effective} changes effective, verifiers confirmed ${confirmed.join(', ')}`,
);
