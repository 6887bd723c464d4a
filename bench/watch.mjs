/**
 * Revoke until effective at third parties, which have an address and a token and no Redis: two token-services, four
 * verifiers on streams of theirs, each on two, and revocations at the first. Then the same with Redis killed. Beside it a
 * change of the name, which writes no invalidation: the peer.
 */
import { randomBytes } from 'node:crypto';
import { bearer, systemClock, tokensCaller } from '@latchkey/runtime';
import { startCluster } from '@latchkey/testing';
import { Verifier, WatchFeed } from '@latchkey/verifier';
import { atRate, issue } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

const {
  parties,
  'per-second': perSecond,
  seconds,
} = options('watch', 'Revoke until effective at third parties over streams, with Redis and without.', {
  parties: [4, 'verifiers of third parties'],
  'per-second': [20, 'revocations a second'],
  seconds: [15, 'how long each part takes'],
});
const WARM_UP = 40;
/** An owner of tokens holds so many leases here: fewer than are allowed, so that more parties are of several owners. */
const PARTIES_OF_AN_OWNER = 50;

const cluster = await startCluster({ tokenServices: 2, gateways: 0, throughLink: false });
/** @type {(() => unknown)[]} */
const closing = [];
/** @type {string[]} */
const projects = [];
/** @type {{ id: string, secret: string }[]} */
const tokens = [];
try {
  const count = perSecond * seconds;
  for (let i = 0; i < 2 * count + WARM_UP; i++) tokens.push(await issue(cluster, `bench ${i}`));
  for (let i = 0; i * PARTIES_OF_AN_OWNER < parties; i++) {
    const { body } = await cluster.call('POST', '/v1/projects', { name: `parties ${i}` });
    projects.push(/** @type {{ id: string }} */ (body).id);
  }
  const verifiers = [];
  for (let i = 0; i < parties; i++) verifiers.push(await thirdParty(i));
  for (const token of tokens)
    await Promise.all(verifiers.map(({ verifier }) => accepted(verifier, token.secret, true)));

  const revoke = async (/** @type {string} */ id, /** @type {Map<string, number[]>} */ by) => {
    const { body } = await cluster.call('POST', `/v1/tokens/${id}/revoke`, {});
    const { effective, receipt } = /** @type {any} */ (body);
    if (!effective || receipt.verifiers.length !== parties) throw new Error(JSON.stringify(body));
    for (const { name, by: how, ms } of receipt.verifiers) {
      const kind = `${Number(name.at(-1)) % 2 === 0 ? 'near' : 'far'}, by ${how}`;
      by.set(kind, [...(by.get(kind) ?? []), ms]);
    }
  };
  const rename = async (/** @type {string} */ id) =>
    void (await cluster.call('PATCH', `/v1/tokens/${id}`, { name: id }));
  const offered = async (/** @type {number} */ from, /** @type {number} */ to, work = revoke) => {
    /** @type {Map<string, number[]>} */
    const by = new Map();
    const took = await atRate(perSecond, tokens.slice(from, to), ({ id }) => work(id, by));
    return { took, by };
  };
  await offered(0, WARM_UP);
  const renames = await offered(WARM_UP, WARM_UP + count, rename);
  report('PATCH of the name, p50', percentile(renames.took, 0.5), undefined, ' ms');
  report('PATCH of the name, p99', percentile(renames.took, 0.99), undefined, ' ms');
  const up = await offered(WARM_UP, WARM_UP + count);
  tell('with Redis', up, parties > PARTIES_OF_AN_OWNER ? 60 : 30);
  await cluster.redis.kill();
  const down = await offered(WARM_UP + count, WARM_UP + 2 * count);
  tell('without Redis', down, 300);
  for (const { secret } of tokens.slice(-50))
    for (const { verifier } of verifiers) await accepted(verifier, secret, false);
} finally {
  for (const close of closing.reverse()) await close();
  await cluster.close();
}

async function thirdParty(/** @type {number} */ i) {
  const projectId = projects[Math.floor(i / PARTIES_OF_AN_OWNER)];
  const { secret } = await issue(cluster, `third party ${i}`, { kind: 'prj', projectId, scopes: ['tokens:verify'] });
  const address = cluster.rpcAddresses[i % 2] ?? '';
  const caller = tokensCaller({ address, authorization: bearer(secret), timeoutMs: 5_000 });
  const feed = new WatchFeed({ open: () => caller.watch(), clock: systemClock });
  const verifier = new Verifier({
    name: `third party ${i}`,
    newClaim: () => randomBytes(32).toString('base64url'),
    clock: systemClock,
    source: {
      lookup: (hash) => caller.lookup({ hash }),
      renew: (request) => caller.renew(request),
      release: async (request) => void (await caller.release(request)),
    },
    feed,
  });
  await verifier.start();
  closing.push(async () => {
    await verifier.stop();
    caller.close();
  });
  while (!feed.isOpen) await new Promise((resolve) => setTimeout(resolve, 10));
  return { verifier };
}

async function accepted(
  /** @type {Verifier} */ verifier,
  /** @type {string} */ secret,
  /** @type {boolean} */ expected,
) {
  const { allowed } = await verifier.verify(secret, { scopes: [] });
  if (allowed !== expected) throw new Error(`a verifier ${allowed ? 'accepts' : 'refuses'} a token`);
}

function tell(
  /** @type {string} */ when,
  /** @type {{ took: number[], by: Map<string, number[]> }} */ { took, by },
  /** @type {number} */ p99,
) {
  report(`revoke to effective at third parties ${when}, p50`, percentile(took, 0.5), undefined, ' ms');
  report(`revoke to effective at third parties ${when}, p99`, percentile(took, 0.99), p99, ' ms');
  for (const [kind, ms] of by)
    console.log(
      `    ${kind}: ${ms.length}, after the commit p50 ${percentile(ms, 0.5)} ms, p99 ${percentile(ms, 0.99)} ms`,
    );
}
