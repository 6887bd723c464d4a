/**
 * verify() from memory against the bare hash of the same string, in one run; and what a remembered token costs at one
 * million. The verifier and its clock are the real ones; the authority responds at once.
 */
import { spawnSync } from 'node:child_process';
import { hash, randomUUID } from 'node:crypto';
import { systemClock } from '@latchkey/runtime';
import { mint } from '@latchkey/token-format';
import { Verifier } from '@latchkey/verifier';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

options('verify', 'verify() from memory beside the bare hash, and what a remembered token costs.', {});

const ROUNDS = 31;
const CHECKS_PER_ROUND = 100_000;
const TOKENS = 1_000_000;

/** @param {(hash: string) => import('@latchkey/contracts').TokenSnapshot} snapshotOf @param {number} entriesMax */
async function verifierWith(snapshotOf, entriesMax) {
  const verifier = new Verifier({
    newClaim: () => randomUUID(),
    name: 'bench',
    clock: systemClock,
    limits: { entriesMax },
    source: {
      lookup: async (digest) => ({ known: true, token: snapshotOf(digest) }),
      renew: async () => ({
        leaseMs: 600_000,
        cursor: { log: 'bench', xid: '1' },
        reset: true,
        invalidations: [],
        ackKey: new Uint8Array(32),
        usageKey: new Uint8Array(32),
        feedKey: new Uint8Array(0),
        feedKeys: [],
        verifierId: 'bench',
        caller: 'first-party',
      }),
      release: async () => undefined,
    },
    feed: { subscribe: () => () => undefined, acknowledge: async () => undefined },
  });
  await verifier.start();
  return verifier;
}

/** A UUID as it comes off the wire: flat, where randomUUID() returns a tree of pieces. */
const newId = () => Buffer.from(randomUUID()).toString('latin1');

/** @param {string[]} owners @param {string[]} projects */
function factsMaker(owners, projects) {
  let made = 0;
  return () => {
    made++;
    const owner = owners[made % owners.length] ?? '';
    const project = projects[made % projects.length] ?? '';
    // As they come off the wire: every string a new one.
    return structuredClone({
      id: newId(),
      kind: 'pat',
      ownerType: 'user',
      ownerId: owner,
      project: '',
      denial: '',
      expiresAtMs: Date.now() + 86_400_000 + made,
      scopes: ['demo:read', 'demo:write'],
      allProjects: false,
      grants: [{ project, scopes: ['demo:read', 'demo:write'] }],
      ancestors: [],
      allowedIps: [],
      rateLimit: null,
    });
  };
}

async function time() {
  const verifier = await verifierWith(factsMaker([randomUUID()], [randomUUID()]), 10_000);
  const secrets = Array.from({ length: 1_000 }, () => mint('pat'));
  const requirement = { scopes: ['demo:read'], ip: '127.0.0.1' };
  for (const secret of secrets) await verifier.verify(secret, requirement);
  const at = (/** @type {number} */ i) => /** @type {string} */ (secrets[i % secrets.length]);
  let accepted = 0;
  let hashed = 0;
  const rounds = { verify: /** @type {number[]} */ ([]), hash: /** @type {number[]} */ ([]) };
  for (let round = 0; round < ROUNDS; round++) {
    let startedMs = performance.now();
    for (let i = 0; i < CHECKS_PER_ROUND; i++) hashed += hash('sha256', at(i), 'base64url').length;
    rounds.hash.push(((performance.now() - startedMs) / CHECKS_PER_ROUND) * 1e6);
    startedMs = performance.now();
    for (let i = 0; i < CHECKS_PER_ROUND; i++) {
      const verdict = verifier.verify(at(i), requirement);
      if (!(verdict instanceof Promise) && verdict.allowed) accepted++;
    }
    rounds.verify.push(((performance.now() - startedMs) / CHECKS_PER_ROUND) * 1e6);
  }
  if (accepted !== ROUNDS * CHECKS_PER_ROUND || hashed === 0)
    throw new Error('not every check was answered from memory');
  await verifier.stop();
  report('crypto.hash(sha256) of the secret', percentile(rounds.hash, 0.5), undefined, ' ns');
  report('verify() from memory', percentile(rounds.verify, 0.5), undefined, ' ns');
  const ratios = rounds.verify.map((ns, i) => ns / /** @type {number} */ (rounds.hash[i]));
  report('ratio, median of the rounds', percentile(ratios, 0.5), 2.5, '×');
}

/** @param {string} what @param {number} owners @param {number} [atMost] */
async function memory(what, owners, atMost) {
  const ids = (/** @type {number} */ n) => Array.from({ length: n }, newId);
  const verifier = await verifierWith(factsMaker(ids(owners), ids(1_000)), TOKENS);
  const before = used();
  for (let i = 0; i < TOKENS; i++) await verifier.verify(mint('pat'), { scopes: [] });
  const after = used();
  const { entries } = verifier.state();
  if (entries !== TOKENS) throw new Error(`${entries} tokens are remembered, not ${TOKENS}`);
  report(`memory per token at ${TOKENS / 1e6} M, ${what}`, (after - before) / entries, atMost, ' bytes');
  await verifier.stop();
}

function used() {
  if (!globalThis.gc) throw new Error('run me with --expose-gc');
  for (let i = 0; i < 3; i++) globalThis.gc();
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  return heapUsed + external + arrayBuffers;
}

// Each case in a process of its own, so that none pays for what another left behind.
const cases = {
  time,
  owners: () => memory('ten tokens per owner', TOKENS / 10, 400),
  apart: () => memory('an owner for each token', TOKENS),
};
const chosen = /** @type {keyof typeof cases | undefined} */ (process.argv[2]);
if (chosen) await cases[chosen]();
else {
  for (const name of Object.keys(cases)) {
    const { status } = spawnSync(process.execPath, [...process.execArgv, import.meta.filename, name], {
      stdio: 'inherit',
    });
    if (status !== 0) process.exitCode = 1;
  }
}
