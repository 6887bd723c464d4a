/**
 * `npm run faults`: three gateways and two token-services as processes, with PostgreSQL and Redis; tokens are presented
 * at every gateway in hot loops while some are revoked and something goes wrong. Each history is evaluated; the table shows
 * what was checked and what it cost. `npm run faults -- redis` runs the scenarios whose name contains the word;
 * `npm run faults -- --checks=1000000` goes round until there were so many checks.
 */
import { startCluster } from '@latchkey/testing';
import { checkEvaluate } from './history.mjs';
import { CLUSTER } from './places.mjs';
import { faultsOf, summary, table } from './report.mjs';
import { scenarios } from './scenarios.mjs';
import { trial } from './trial.mjs';

checkEvaluate();
const words = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const wanted = Number(process.argv.find((word) => word.startsWith('--checks='))?.slice('--checks='.length) ?? 0);
if (!Number.isSafeInteger(wanted) || wanted < 0) throw new Error('--checks= must be a whole number');
const named = scenarios.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));
if (named.length === 0) throw new Error(`no scenario has ${words.join(' or ')} in its name`);
for (const { name, needs } of named) if (needs) console.log(`${name}\n  not run: this machine lacks ${needs}`);
const chosen = named.filter(({ needs }) => !needs);

/** @type {import('./trial.mjs').Outcome[]} */
const outcomes = [];
const checks = () => outcomes.reduce((sum, outcome) => sum + outcome.checks, 0);
/** What could not be brought to its end. @type {string[]} */
const unfinished = [];
do {
  // Those that share a cluster first, so that it takes nothing from those that have their own.
  await round(chosen.filter(({ open }) => !open));
  for (const scenario of chosen.filter(({ open }) => open)) await round([scenario]);
} while (checks() < wanted && unfinished.length === 0);

console.log(`\n${table(outcomes)}`);
for (const what of unfinished) console.log(`\nnot finished: ${what}`);
const broken = outcomes.reduce((sum, outcome) => sum + faultsOf(outcome), 0);
console.log(broken ? `\n${broken} checks or promises broke the guarantee` : '\nno check broke the guarantee');
// By itself Node goes on for ever now and then, closing sockets that were reset (Environment::CleanupHandles).
process.exit(broken || unfinished.length ? 1 : 0);

/**
 * One after the other at one place; after one that could not be brought to its end, the others at a new one.
 * @param {readonly import('./trial.mjs').Scenario[]} together
 */
async function round(together) {
  const left = [...together];
  for (let scenario = left.shift(); scenario; scenario = left.shift()) {
    /** @type {import('./trial.mjs').OwnPlace | undefined} */
    let place;
    try {
      place = await (scenario.open ?? shared)();
      for (; scenario; scenario = left.shift()) {
        const outcome = await trial(scenario, place);
        outcomes.push(outcome);
        console.log(summary(outcome));
      }
    } catch (error) {
      unfinished.push(`${scenario?.name}: ${error instanceof Error ? error.stack : error}`);
    } finally {
      await place?.close();
    }
  }
}

/** @returns {Promise<import('./trial.mjs').OwnPlace>} */
async function shared() {
  const cluster = await startCluster(CLUSTER);
  return { cluster, close: () => cluster.close() };
}
