/**
 * Whoever can write to Redis, and has no key: messages forged, replayed, cut short and far too long, thousands a second,
 * on every channel and stream. They may cost time; nobody is confirmed by them, nobody is refused, no process ends, and
 * /metrics says what was dropped and why.
 */
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ACKNOWLEDGEMENT_LENGTH_MAX,
  digestOf,
  INVALIDATION_EVENT_LENGTH_MAX,
  REDIS,
  USAGE_BODY_LENGTH_MAX,
} from '@latchkey/contracts';
import { startCluster } from '@latchkey/testing';
import { again, counted, isVerifierOf, redisOf } from './doing.mjs';
import { at, CLUSTER, LEASE_MS } from './places.mjs';

/** What is sent every so often: about 3 000 messages a second in all. */
const EVERY_MS = 50;
const FEED_MESSAGES = 70;
const ACKNOWLEDGEMENTS = 70;
const USAGE_MESSAGES = 10;
/** As fast as this the longest ones are sent. */
const HUGE_EVERY_MS = 1_000;
const HEARD_MAX = 50;

/** Reasons by which drops are counted, each of which must have been met. @type {readonly [string, readonly string[], 'gateways' | 'tokenServices' | 'jobs'][]} */
const DROPS = [
  ['latchkey_feed_dropped_total', ['too_long', 'malformed', 'unknown_key', 'not_authentic'], 'gateways'],
  [
    'latchkey_acknowledgements_dropped_total',
    ['too_long', 'malformed', 'not_awaited', 'not_authentic'],
    'tokenServices',
  ],
  ['latchkey_usage_batches_total', ['malformed', 'not_authentic', 'applied'], 'jobs'],
];

const guess = (/** @type {string} */ text) => createHmac('sha256', 'a guess').update(text).digest('base64url');
const text43 = () => randomBytes(32).toString('base64url');

/** @template T @param {readonly T[]} list */
const any = (list) => list[Math.floor(Math.random() * list.length)];

/** Every shape that a liar gives to a message of the feed; `real` is one that was heard. @param {string | undefined} real */
function forgedInvalidation(real) {
  const made = {
    log: randomUUID(),
    invalidations: [{ id: randomUUID(), kind: 'everything', subject: '', cut: true, xid: '1' }],
    key: text43().slice(0, 16),
    signature: text43() + text43(),
  };
  const event = real === undefined ? made : JSON.parse(real);
  const [first] = event.invalidations;
  const forge = any([
    () => real ?? '', // again
    () => (real ?? JSON.stringify(made)).slice(0, -20), // cut short
    () => JSON.stringify(made), // by a key that nobody knows
    () => JSON.stringify({ ...event, log: randomUUID() }),
    () => JSON.stringify({ ...event, invalidations: [{ ...first, kind: 'misses', subject: '', cut: false }] }),
    () =>
      JSON.stringify({ ...event, invalidations: [{ ...first, id: randomUUID(), kind: 'everything', subject: '' }] }),
    () => JSON.stringify({ ...event, invalidations: [{ ...first, xid: '18446744073709551615' }] }),
    () => JSON.stringify({ ...event, invalidations: Array.from({ length: 65 }, () => first) }),
    () => JSON.stringify({ ...event, __proto__: null, constructor: {} }),
    () => randomBytes(200).toString('latin1'),
    () => '['.repeat(5_000),
    () => 'x'.repeat(INVALIDATION_EVENT_LENGTH_MAX + 1),
    () => 'null',
    () => '',
  ]);
  return forge?.() ?? '';
}

/** The same for an acknowledgement. @param {string | undefined} real @param {string | undefined} verifier @param {string | undefined} digest of an invalidation that is waited for */
function forgedAcknowledgement(real, verifier = randomUUID(), digest = text43()) {
  const made = { verifier, digests: [digest], mac: guess(`${verifier}\n${digest}`) };
  const event = real === undefined ? made : JSON.parse(real);
  const forge = any([
    () => real ?? '',
    () => (real ?? JSON.stringify(made)).slice(0, -10),
    () => JSON.stringify(made), // for another verifier, by a key of one's own
    () => JSON.stringify({ ...event, verifier }), // what one said, in another's name
    () => JSON.stringify({ ...event, digests: [digest] }),
    () => JSON.stringify({ ...made, digests: [text43()] }),
    () => JSON.stringify({ ...made, digests: Array.from({ length: 65 }, text43) }),
    () => randomBytes(100).toString('latin1'),
    () => 'x'.repeat(ACKNOWLEDGEMENT_LENGTH_MAX + 1),
    () => '{}',
  ]);
  return forge?.() ?? '';
}

/** The same for an entry of the usage stream, as fields and values. @param {string[] | undefined} real */
function forgedUsage(real) {
  const verifier = randomUUID();
  const body = JSON.stringify({ verifier, sequence: 1, lines: [], denials: [], denialsDropped: 0 });
  const made = ['verifier', verifier, 'caller', 'first-party', 'body', body, 'mac', guess(body)];
  const fields = real ?? made;
  const forge = any([
    () => fields,
    () => made,
    () => fields.map((text, i) => (i === 5 ? text.slice(0, -10) : text)), // the body, cut short
    () => fields.map((text, i) => (i === 1 ? verifier : text)), // in another's name
    () => ['body', 'x'],
    () => ['verifier', '', 'caller', 'root', 'body', '', 'mac', ''],
    () => ['\0', randomBytes(50).toString('latin1')],
  ]);
  return forge?.() ?? made;
}

/** What was really said, of late. */
class Heard {
  /** @type {string[]} */
  invalidations = [];
  /** @type {string[]} */
  acknowledgements = [];
  /** @type {string[][]} */
  usage = [];

  /** @template T @param {T[]} list @param {T} one */
  keep(list, one) {
    list.push(one);
    if (list.length > HEARD_MAX) list.shift();
  }
}

/** Digests of what is being confirmed now. @param {Heard} heard @returns {string[]} */
const awaited = ({ invalidations }) =>
  invalidations.slice(-10).flatMap((text) => {
    const { log, invalidations: some } = JSON.parse(text);
    return some.map((/** @type {import('@latchkey/contracts').Invalidation} */ one) => digestOf(log, one));
  });

/** @returns {import('./trial.mjs').Scenario} */
function makeFlood() {
  let sent = 0;
  let seconds = 0;
  return {
    name: 'forged, replayed, cut and oversized messages on every channel, thousands a second',
    open: async () => {
      const cluster = await startCluster({ ...CLUSTER, jobs: true });
      return { cluster, close: () => cluster.close() };
    },
    inject: async ({ cluster }) => {
      const startedMs = performance.now();
      const frozen = at(cluster.gateways, 1);
      frozen.process.pause();
      const leases = await cluster.database.query('SELECT verifier_id, name FROM leases');
      const verifiers = leases.map((row) => String(row['verifier_id']));
      const heard = new Heard();
      /** Of what was sent from here, how often it is still to come back. @type {Map<string, number>} */
      const own = new Map();
      const [publisher, subscriber] = [redisOf(cluster), redisOf(cluster)];
      subscriber.on('message', (channel, text) => {
        const left = own.get(text) ?? 0;
        if (left > 1) own.set(text, left - 1);
        else own.delete(text);
        if (left > 0) return;
        heard.keep(channel === REDIS.invalidations ? heard.invalidations : heard.acknowledgements, text);
      });
      await subscriber.subscribe(REDIS.invalidations, REDIS.acknowledgements);
      /** @param {import('ioredis').ChainableCommander} all @param {string} channel @param {string} text */
      const publish = (all, channel, text) => {
        sent++;
        own.set(text, (own.get(text) ?? 0) + 1);
        all.publish(channel, text);
      };
      const stop = again(EVERY_MS, async () => {
        const all = publisher.pipeline();
        const digests = awaited(heard);
        for (let i = 0; i < FEED_MESSAGES; i++)
          publish(all, REDIS.invalidations, forgedInvalidation(any(heard.invalidations)));
        for (let i = 0; i < ACKNOWLEDGEMENTS; i++)
          publish(
            all,
            REDIS.acknowledgements,
            forgedAcknowledgement(any(heard.acknowledgements), any(verifiers), any(digests)),
          );
        for (let i = 0; i < USAGE_MESSAGES; i++) {
          sent++;
          all.xadd(REDIS.usage, 'MAXLEN', '~', REDIS.usageStreamLengthMax, '*', ...forgedUsage(any(heard.usage)));
        }
        await all.exec();
        const [last] = await publisher.xrevrange(REDIS.usage, '+', '-', 'COUNT', 1);
        if (last?.[1].length === 8) heard.keep(heard.usage, last[1]);
      });
      const stopHuge = again(HUGE_EVERY_MS, async () => {
        const huge = 'x'.repeat(USAGE_BODY_LENGTH_MAX + 1);
        const all = publisher.pipeline();
        publish(all, REDIS.invalidations, huge);
        publish(all, REDIS.acknowledgements, huge);
        sent++;
        all.xadd(REDIS.usage, '*', 'verifier', randomUUID(), 'body', huge, 'mac', text43());
        await all.exec();
        // What BullMQ finds in its queues may be anybody's too.
        for (const queue of ['tokens', 'audit', 'usage', 'notices']) {
          sent++;
          await publisher.hset(`${REDIS.queues}:${queue}:forged`, 'name', 'forged', 'data', '{"', 'opts', '[]');
          await publisher.lpush(`${REDIS.queues}:${queue}:wait`, 'forged');
        }
      });
      return async () => {
        await Promise.all([stop(), stopHuge()]);
        seconds = (performance.now() - startedMs) / 1_000;
        publisher.disconnect();
        subscriber.disconnect();
        frozen.process.resume();
        await sleep(LEASE_MS); // jobs goes on reading
      };
    },
    promises: async ({ cluster }, revocations) => {
      const { gateways, tokenServices, jobs } = cluster;
      if (!jobs) throw new Error('this scenario needs jobs');
      const members = { gateways, tokenServices, jobs: [jobs] };
      const isFrozen = isVerifierOf(at(gateways, 1));
      console.log(`  (${sent} messages in ${seconds.toFixed(1)} s)`);
      /** @type {string[]} */
      const broken = [];
      for (const { token, confirmed } of revocations)
        for (const { by } of confirmed.filter(isFrozen))
          if (by !== 'lease') broken.push(`the frozen gateway confirmed ${token} by ${by}`);
      for (const [name, reasons, who] of DROPS)
        for (const reason of reasons)
          if ((await counted(members[who], name, `="${reason}"`)) === 0) broken.push(`${name} counts no ${reason}`);
      for (const { name, process } of [...gateways, ...tokenServices, jobs]) {
        const ended = await Promise.race([process.exited, sleep(0)]);
        if (ended) broken.push(`${name} ended: ${process.logs().slice(-500)}`);
      }
      return broken;
    },
  };
}

export const flood = makeFlood();
