import { parseArgs } from 'node:util';
import { caseOf, type Kind, runCase } from './in-process.js';
import { runOverSockets } from './over-sockets.js';
import { findProgram } from './programs.js';
import { Origin, type ProxyProgram, startHaproxy, startNginx, startOurs } from './proxies.js';
import { Tally } from './tally.js';

/**
 * `npm run differential -- --seed N --messages M [--sockets S]`: M streams, half of requests and half of responses, read by
 * the gateway's parsers and by llhttp in this process, then S of them through the gateway's engine, nginx and HAProxy.
 * `--only request:17` runs one case and shows its bytes. Exits with code 1 when a message ends elsewhere for another program,
 * or when all others refuse it.
 */
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    messages: { type: 'string', default: '100000' },
    sockets: { type: 'string', default: '5000' },
    only: { type: 'string' },
  },
});
const wholeNumber = (name: 'seed' | 'messages' | 'sockets'): number => {
  const number = Number(values[name]);
  if (!Number.isSafeInteger(number) || number < 0)
    throw new Error(`--${name} must be a whole number, not ${values[name]}`);
  return number;
};
const seed = wholeNumber('seed');
const messages = wholeNumber('messages');
const sockets = wholeNumber('sockets');
const CONNECTIONS = 32;
const PROGRESS_MS = 5_000;

const tally = new Tally(seed);
const kindOf = (index: number): Kind => (index % 2 === 0 ? 'request' : 'response');
let progressAtMs = performance.now();
let since = { atMs: progressAtMs, done: 0 };

function progress(what: string, done: number, total: number): void {
  const nowMs = performance.now();
  if (nowMs - progressAtMs < PROGRESS_MS) return;
  progressAtMs = nowMs;
  const rate = (1_000 * (done - since.done)) / (nowMs - since.atMs);
  console.log(`${what}: ${done} of ${total}, ${rate.toFixed(0)} a second, ${tally.failures} failures`);
}

function inProcess(): void {
  since = { atMs: performance.now(), done: 0 };
  for (let index = 0; index < messages; index++) {
    tally.addInProcess(runCase(seed, kindOf(index), index));
    progress('in process', index, messages);
  }
}

async function overSockets(indexes: readonly number[]): Promise<void> {
  const origin = new Origin();
  await origin.listen();
  const proxies: ProxyProgram[] = [];
  try {
    proxies.push(await startOurs(origin));
    proxies.push(await startNginx(await findProgram('nginx'), origin));
    proxies.push(await startHaproxy(await findProgram('haproxy'), origin));
    let next = 0;
    since = { atMs: performance.now(), done: 0 };
    const run = async () => {
      while (next < indexes.length) {
        const index = indexes[next++]!;
        tally.addOverSockets(await runOverSockets(seed, kindOf(index), index, proxies, origin));
        progress('over sockets', next, indexes.length);
      }
    };
    await Promise.all(Array.from({ length: CONNECTIONS }, run));
  } finally {
    for (const proxy of proxies) await proxy[Symbol.asyncDispose]();
    await origin.close();
  }
}

// The proxies are ended with this process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
const startedAtMs = performance.now();
if (values.only === undefined) {
  inProcess();
  if (sockets > 0) await overSockets(Array.from({ length: sockets }, (_, index) => index));
} else {
  const index = Number(values.only.slice(values.only.indexOf(':') + 1));
  const { made } = caseOf(seed, kindOf(index), index);
  console.log(JSON.stringify({ ...made, bytes: made.bytes.toString('latin1') }, undefined, 1));
  const outcome = runCase(seed, kindOf(index), index);
  console.log(
    JSON.stringify({ ours: outcome.ours, ...outcome.comparison, forwarding: outcome.forwarding }, undefined, 1),
  );
  tally.addInProcess(outcome);
  await overSockets([index]);
}
console.log(tally.report());
console.log(`seed ${seed}: ${tally.summary()} in ${((performance.now() - startedAtMs) / 1_000).toFixed(0)} s`);
process.exit(tally.failures > 0 ? 1 : 0);
