/**
 * What a check costs that cannot be answered from memory: tokens never seen before, each presented once at a gateway and
 * once more, which is answered from memory. `--before <folder>`: beside the version built there, in turns.
 */
import { Agent, get } from 'node:http';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { issue, many } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

const { before, rounds, tokens } = options('miss', 'Checks of tokens never seen before.', {
  before: ['', 'folder of another version, built'],
  rounds: [9, 'how often each version is measured'],
  tokens: [400, 'tokens a round'],
});

/** @typedef {{ cluster: import('./lib/cluster.mjs').Cluster, agent: Agent, missed: number[], hit: number[] }} Version */

const here = path.resolve(import.meta.dirname, '..');
const versions = /** @type {Version[]} */ (
  await Promise.all([here, ...(before ? [path.resolve(before)] : [])].map(async (folder) => started(folder)))
);
const [now, then] = versions;
if (!now) throw new Error('nothing was started');
try {
  for (const version of versions) await round(version);
  for (const version of versions) version.missed = version.hit = [];
  /** @type {number[]} */
  const ratios = [];
  for (let i = 0; i < rounds; i++) {
    const medians = [];
    for (const version of i % 2 ? versions.toReversed() : versions) {
      const took = await round(version);
      version.missed = [...version.missed, ...took.missed];
      version.hit = [...version.hit, ...took.hit];
      medians.push({ version, ms: percentile(took.missed, 0.5) });
    }
    const of = (/** @type {Version | undefined} */ version) => medians.find((one) => one.version === version)?.ms ?? 0;
    if (then) ratios.push(of(now) / of(then));
  }
  for (const version of versions) {
    const name = version === now ? '' : ', before';
    report(`a token never seen, p50${name}`, percentile(version.missed, 0.5), undefined, ' ms');
    report(`a token never seen, p99${name}`, percentile(version.missed, 0.99), undefined, ' ms');
    report(`the same from memory, p50${name}`, percentile(version.hit, 0.5), undefined, ' ms');
  }
  if (then) {
    const spread = `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`;
    report(`never seen, now to before, median of the rounds (${spread})`, percentile(ratios, 0.5), 1.15, '×');
  }
} finally {
  for (const { cluster, agent } of versions) {
    agent.destroy();
    await cluster.close();
  }
}

/** @param {string} folder @returns {Promise<Version>} */
async function started(folder) {
  const { startCluster } = await import(pathToFileURL(path.join(folder, 'packages/testing/dist/index.js')).href);
  const cluster = await startCluster({ gateways: 1, throughLink: false });
  return { cluster, agent: new Agent({ keepAlive: true, maxSockets: 1 }), missed: [], hit: [] };
}

/** @param {Version} version */
async function round({ cluster, agent }) {
  const issued = await many(tokens, (i) => issue(cluster, `token ${i}`));
  /** @type {number[]} */
  const missed = [];
  /** @type {number[]} */
  const hit = [];
  for (const { secret } of issued) {
    missed.push(await presented(cluster, agent, secret));
    hit.push(await presented(cluster, agent, secret));
  }
  return { missed, hit };
}

/** @param {Version['cluster']} cluster @param {Agent} agent @param {string} secret @returns {Promise<number>} milliseconds */
function presented(cluster, agent, secret) {
  const sentMs = performance.now();
  return new Promise((resolve, reject) => {
    const url = new URL(cluster.guardedPath, cluster.gateways[0]?.url);
    get(url, { agent, headers: { authorization: `Bearer ${secret}` } }, (response) => {
      response.resume().once('end', () => {
        if (response.statusCode === 200) resolve(performance.now() - sentMs);
        else reject(new Error(`a check returned ${response.statusCode}`));
      });
    }).once('error', reject);
  });
}
