/**
 * `npm run model`: checks the models of the revocation protocol and prints a table.
 *
 *   npm run model                    every property, searched completely, and every mutant (about two minutes)
 *   npm run model -- --quick         the smaller models only (part of npm test)
 *   npm run model -- --deep          also the largest models (minutes more)
 *   npm run model -- --only TEXT     only checks whose model, switches or title contain TEXT, of all sets
 *   npm run model -- --history       with each mutant, the steps that lead to the violation
 *
 * Exits with code 1 when a property does not hold, a search is not complete, or a mutant is not found.
 */
import { parseArgs } from 'node:util';
import { memoryMbOf, problemOf, runCheck } from './check.mjs';
import { checks, checksOf } from './checks.mjs';
import { findToolchain } from './toolchain.mjs';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    deep: { type: 'boolean', default: false },
    only: { type: 'string' },
    history: { type: 'boolean', default: false },
  },
});

const only = values.only?.toLowerCase();
const chosen = only
  ? checks.filter((check) => `${check.model} ${check.defines.join(' ')} ${check.title}`.toLowerCase().includes(only))
  : checksOf(values.quick ? 'quick' : values.deep ? 'deep' : 'full');
if (chosen.length === 0) throw new Error(`no check matches --only ${values.only}`);

const tools = await findToolchain((line) => console.log(line));
console.log(
  `spin with ${tools.compiler}; each search uses at most ${memoryMbOf({ set: values.deep ? 'deep' : 'full' })} MB and is complete unless marked otherwise\n`,
);
const columns = /** @type {const} */ ([10, 10, 58, 11, 8, 8, 6]);
const row = (/** @type {(string | number)[]} */ cells) =>
  cells
    .map((cell, i) => (i < 3 ? String(cell).padEnd(columns[i] ?? 0) : String(cell).padStart(columns[i] ?? 0)))
    .join(' ');
console.log(`${row(['model', 'property', 'what', 'states', 'depth', 'seconds', 'MB'])}  result`);

let failures = 0;
let mutantsFound = 0;
for (const check of chosen) {
  const result = await runCheck(check, tools, { history: values.history });
  const problem = problemOf(check, result);
  if (problem) failures++;
  else if (check.mutant) mutantsFound++;
  const states = result.states.toLocaleString('en');
  const verdict = problem ? `FAILED: ${problem}` : check.mutant ? `found after ${states} states` : 'holds, complete';
  const cells = [
    check.model,
    check.property,
    check.mutant
      ? `mutant: ${check.title}`
      : [check.title, check.defines.length ? `(${check.defines.join(' ')})` : ''].join(' '),
  ];
  console.log(`${row([...cells, states, result.depth, result.seconds.toFixed(1), result.megabytes])}  ${verdict}`);
  if (!check.mutant && result.unreached.length > 0) console.log(`  never reached: ${result.unreached.join('; ')}`);
  if (result.history) console.log(result.history);
}
const properties = chosen.filter((check) => !check.mutant).length;
console.log(
  failures
    ? `\n${failures} of ${chosen.length} checks failed`
    : `\n${properties} properties hold; ${mutantsFound} mutants, each found`,
);
process.exitCode = failures ? 1 : 0;
