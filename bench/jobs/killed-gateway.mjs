/** What a killed gateway takes with it: see `--help`. */

import { options } from '../lib/options.mjs';
import { report } from '../lib.mjs';
import { sleep, startStack, until } from './stack.mjs';

const choice = options(
  'killed-gateway',
  `A gateway is killed (SIGKILL) in the middle of steady traffic, several times: verdicts that it gave and that are never
counted. It sends its counts every second, so no more than that and the batch in flight can be lost.`,
  { rounds: [5, 'how often'] },
);
/** A second between two batches, and as much again for the one on its way on a busy machine. */
const LOSS_MS_MAX = 2_000;

const stack = await startStack();
const worker = await stack.worker();
try {
  const { id, secret } = await stack.call('POST', '/v1/tokens', { name: 'counted' });
  const counted = () => stack.count('SELECT coalesce(sum(count), 0) FROM usage_hourly WHERE token_id = $1', [id]);
  const lost = [];
  for (let round = 0; round < choice.rounds; round++) {
    const gateway = await stack.gateway();
    const before = await counted();
    let responses = 0;
    let running = true;
    const startedAt = performance.now();
    const caller = async () => {
      while (running) {
        const headers = { authorization: `Bearer ${secret}` };
        const response = await fetch(`${gateway.url}/demo/x`, { headers }).catch(() => null);
        if (!response) continue;
        await response.arrayBuffer().catch(() => null);
        if (response.status !== 200) throw new Error(`the gateway returned ${response.status}`);
        responses++;
        await sleep(5);
      }
    };
    const callers = Array.from({ length: 4 }, caller);
    // At another moment between two batches each time.
    await sleep(4_000 + round * 330);
    await gateway.kill();
    running = false;
    await Promise.all(callers);
    const perSecond = responses / ((performance.now() - startedAt) / 1_000);
    let last = -1;
    await until(async () => {
      const now = await counted();
      const still = now === last;
      last = now;
      return still;
    }, 8_000);
    const missing = responses - (last - before);
    lost.push((missing / perSecond) * 1_000);
    report(`round ${round + 1}: of ${responses} verdicts lost`, missing);
  }
  report('lost at most, as time of traffic', Math.max(...lost), LOSS_MS_MAX, ' ms');
  report('counted too often', lost.filter((ms) => ms < 0).length, 0);
} finally {
  await worker.stop();
  await stack.stop();
}
