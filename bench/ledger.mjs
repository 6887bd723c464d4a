/**
 * What the ledger costs: revoke until effective at two gateways with a ledger, beside the same without (the peer), in
 * turn; PostgreSQL flushes as in production. Then a storm, the bytes of a day, and a disk that is full and then read-only.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { Agent } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ownServer, startCluster } from '@latchkey/testing';
import { atRate, issue, many, plainCalls } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

options('ledger', 'What the ledger costs a revocation, beside the same without; a storm, a full disk.', {});

/** @typedef {import('@latchkey/testing').Cluster} Cluster */

const GATEWAYS = 2;
const ROUNDS = 6;
const PER_ROUND = 150;
const PER_SECOND = 50;
const WARM_UP = 150;
const STORM_PER_SECOND = 200;
const STORM_SECONDS = 10;

const agent = new Agent({ keepAlive: true });
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-ledger-'));
/** @type {(() => unknown)[]} */
const closing = [() => rmSync(dir, { recursive: true, force: true }), () => agent.destroy()];

/** @param {boolean} ledger */
async function open(ledger) {
  const server = await ownServer(async () => undefined);
  closing.push(() => server.close());
  const cluster = await startCluster({ gateways: GATEWAYS, throughLink: false, database: server, ledger });
  closing.push(() => cluster.close());
  return cluster;
}

/** @param {Cluster} cluster @param {string} id @param {string} [expected] */
async function revoke(cluster, id, expected) {
  const { status, body } = await plainCalls(cluster, agent)('POST', `/v1/tokens/${id}/revoke`, {});
  const { effective, receipt } = /** @type {any} */ (body);
  if (status !== 200 || !effective) throw new Error(`revoking returned ${status} ${JSON.stringify(body)}`);
  if (expected && receipt.ledger !== expected) throw new Error(`the receipt says ${receipt.ledger}, not ${expected}`);
}

const bytesIn = (/** @type {string} */ folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile() && /\.\d{6}$/.test(one.name))
    .reduce((sum, one) => sum + statSync(path.join(one.parentPath, one.name)).size, 0);

const spread = (/** @type {number[]} */ values) =>
  `${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)} ms`;

try {
  const [kept, bare] = await Promise.all([open(true), open(false)]);
  const storm = STORM_PER_SECOND * STORM_SECONDS;
  const tokensOf = (/** @type {Cluster} */ cluster, /** @type {number} */ count) =>
    many(count, (i) => issue(cluster, `bench ${i}`));
  const sides = [
    { name: 'with the ledger', cluster: kept, expected: 'written' },
    { name: 'without', cluster: bare, expected: 'off' },
  ].map((side) => ({ ...side, all: /** @type {number[]} */ ([]), p50: [], p99: [] }));
  for (const side of sides) {
    const tokens = await tokensOf(side.cluster, WARM_UP);
    for (const { id } of tokens) await revoke(side.cluster, id);
  }
  for (let round = 0; round < ROUNDS; round++)
    for (const side of round % 2 ? [...sides].reverse() : sides) {
      const tokens = await tokensOf(side.cluster, PER_ROUND);
      const took = await atRate(PER_SECOND, tokens, ({ id }) => revoke(side.cluster, id, side.expected));
      side.all.push(...took);
      /** @type {number[]} */ (side.p50).push(percentile(took, 0.5));
      /** @type {number[]} */ (side.p99).push(percentile(took, 0.99));
    }
  const [withIt, without] = sides;
  for (const { name, all, p50, p99 } of sides) {
    report(`revoke to effective ${name}, p50`, percentile(all, 0.5), undefined, ' ms');
    report(`revoke to effective ${name}, p99`, percentile(all, 0.99), undefined, ' ms');
    console.log(`    rounds: p50 ${spread(p50)}, p99 ${spread(p99)}`);
  }
  const added = (/** @type {number} */ share) =>
    percentile(withIt?.all ?? [], share) - percentile(without?.all ?? [], share);
  report('added at p50', added(0.5), 2, ' ms');
  report('added at p99', added(0.99), 2, ' ms');

  for (const { name, cluster, expected } of sides) {
    const tokens = await tokensOf(cluster, storm);
    // A machine that cannot keep up answers some with 503: how many is part of the result.
    let refused = 0;
    const took = await atRate(STORM_PER_SECOND, tokens, ({ id }) =>
      revoke(cluster, id, expected).catch(() => {
        refused++;
      }),
    );
    report(`storm of ${STORM_PER_SECOND} a second ${name}, not effective`, refused, undefined, ` of ${storm}`);
    report(`storm of ${STORM_PER_SECOND} a second ${name}, p50`, percentile(took, 0.5), undefined, ' ms');
    report(`storm of ${STORM_PER_SECOND} a second ${name}, p99`, percentile(took, 0.99), undefined, ' ms');
  }

  const own = mkdirInside('own');
  await kept.tokenServices[0]?.restart({ LEDGER_DIR: own });
  const before = bytesIn(own);
  const counted = await tokensOf(kept, 500);
  for (const { id } of counted) await revoke(kept, id, 'written');
  const each = (bytesIn(own) - before) / 500;
  report('bytes of one revocation', each, undefined, ' B');
  report('bytes of a day at 1,000 revocations an hour', (each * 24_000) / 1e6, undefined, ' MB');

  await onBadDisks(kept, tokensOf);
} finally {
  for (const close of closing.reverse()) await close();
}

function mkdirInside(/** @type {string} */ name) {
  const folder = path.join(dir, name);
  mkdirSync(folder);
  return folder;
}

/** Revocations go on while the ledger's disk is full, or read-only; the receipt says so, and it recovers. */
async function onBadDisks(
  /** @type {Cluster} */ cluster,
  /** @type {(cluster: Cluster, count: number) => Promise<{ id: string }[]>} */ tokensOf,
) {
  const disk = mkdirInside('disk');
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk], { stdio: 'pipe' });
  } catch {
    console.log('  a full and a read-only disk: not measured, mounting one is not allowed here');
    return;
  }
  closing.push(() => execFileSync('umount', ['--lazy', disk]));
  await cluster.tokenServices[0]?.restart({ LEDGER_DIR: disk });
  const outcomes = async (/** @type {number} */ count) => {
    /** @type {Record<string, number>} */
    const seen = {};
    const took = [];
    for (const { id } of await tokensOf(cluster, count)) {
      const startMs = performance.now();
      const { status, body } = await plainCalls(cluster, agent)('POST', `/v1/tokens/${id}/revoke`, {});
      took.push(performance.now() - startMs);
      const { effective, receipt } = /** @type {any} */ (body);
      const outcome = `${status}, effective ${effective}, ledger ${receipt?.ledger}`;
      seen[outcome] = (seen[outcome] ?? 0) + 1;
    }
    return `${JSON.stringify(seen)}, p50 ${percentile(took, 0.5).toFixed(1)} ms, p99 ${percentile(took, 0.99).toFixed(1)} ms`;
  };
  const readiness = async () => (await fetch(`${cluster.tokenServices[0]?.opsUrl}/readyz`)).text();
  console.log(`  disk of 64 kB, 400 revocations: ${await outcomes(400)}`);
  console.log(`    /readyz: ${(await readiness()).trim()}`);
  execFileSync('mount', ['-o', 'remount,size=10m', disk]);
  console.log(`  with space again, 50 revocations: ${await outcomes(50)}`);
  // A disk becomes read-only by itself where writing fails; by hand only once nothing is open on it.
  await cluster.tokenServices[0]?.process.stop();
  execFileSync('mount', ['-o', 'remount,ro', disk]);
  await cluster.tokenServices[0]?.restart({ LEDGER_DIR: disk });
  console.log(`  read-only, 50 revocations: ${await outcomes(50)}`);
  console.log(`    /readyz: ${(await readiness()).trim()}`);
  execFileSync('mount', ['-o', 'remount,rw', disk]);
  console.log(`  writable again, 50 revocations: ${await outcomes(50)}`);
}
