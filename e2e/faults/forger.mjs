/**
 * The attacker of flood.mjs, in a thread of its own: what it sends must not wait for the checks at the gateways.
 */
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import {
  ACKNOWLEDGEMENT_LENGTH_MAX,
  digestOf,
  INVALIDATION_EVENT_LENGTH_MAX,
  REDIS,
  USAGE_BODY_LENGTH_MAX,
} from '@latchkey/contracts';
import { Redis } from 'ioredis';

/** Sent every so often: about 3 000 messages a second in all. */
const EVERY_MS = 20;
const FEED_MESSAGES = 28;
const ACKNOWLEDGEMENTS = 28;
const USAGE_MESSAGES = 2;
/** The longest are sent so often. */
const HUGE_EVERY_MS = 2_000;
const TOO_LONG_OR_DEEP = ['x'.repeat(INVALIDATION_EVENT_LENGTH_MAX + 1), '['.repeat(5_000)];
/** Of so many batches one has messages that are just too long: they cost the sender more than the readers. */
const LONG_EVERY = 9;
const HUGE_LENGTH = 1_000_000;
const RECENT_MAX = 50;
/** What is replayed should cost its readers little: this tries many small messages. */
const REPLAYED_USAGE_LENGTH_MAX = 50_000;

const { redisUrl, verifiers } = /** @type {{ redisUrl: string, verifiers: string[] }} */ (workerData);

const guess = (/** @type {string} */ text) => createHmac('sha256', 'a guess').update(text).digest('base64url');
const text43 = () => randomBytes(32).toString('base64url');

/** @template T @param {readonly T[]} list */
const any = (list) => list[Math.floor(Math.random() * list.length)];

/** Every forgery of a message of the feed; `real` is a recent genuine one. @param {string | undefined} real */
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
    () => JSON.stringify(made), // by an unknown key
    () => JSON.stringify({ ...event, log: randomUUID() }),
    () => JSON.stringify({ ...event, invalidations: [{ ...first, kind: 'misses', subject: '', cut: false }] }),
    () =>
      JSON.stringify({ ...event, invalidations: [{ ...first, id: randomUUID(), kind: 'everything', subject: '' }] }),
    () => JSON.stringify({ ...event, invalidations: [{ ...first, xid: '18446744073709551615' }] }),
    () => JSON.stringify({ ...event, invalidations: Array.from({ length: 65 }, () => first) }),
    () => JSON.stringify({ ...event, __proto__: null, constructor: {} }),
    () => randomBytes(200).toString('latin1'),
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
    () => JSON.stringify({ ...event, verifier }), // a genuine one, in another's name
    () => JSON.stringify({ ...event, digests: [digest] }),
    () => JSON.stringify({ ...made, digests: [text43()] }),
    () => JSON.stringify({ ...made, digests: Array.from({ length: 65 }, text43) }),
    () => randomBytes(100).toString('latin1'),
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

/** Recent genuine messages. */
class Recent {
  /** @type {string[]} */
  invalidations = [];
  /** @type {string[]} */
  acknowledgements = [];
  /** @type {string[][]} */
  usage = [];

  /** @template T @param {T[]} list @param {T} one */
  add(list, one) {
    list.push(one);
    if (list.length > RECENT_MAX) list.shift();
  }
}

/** Digests of what is being confirmed now. @param {Recent} recent @returns {string[]} */
const awaited = ({ invalidations }) =>
  invalidations.slice(-10).flatMap((text) => {
    const { log, invalidations: some } = JSON.parse(text);
    return some.map((/** @type {import('@latchkey/contracts').Invalidation} */ one) => digestOf(log, one));
  });

const recent = new Recent();
let sent = 0;
let running = true;
/** Of what was sent from here, how often it is still to come back. @type {Map<string, number>} */
const own = new Map();
const connect = () => new Redis(redisUrl, { maxRetriesPerRequest: null });
const [publisher, subscriber] = [connect(), connect()];

/** @param {import('ioredis').ChainableCommander} all @param {string} channel @param {string} text */
function publish(all, channel, text) {
  sent++;
  own.set(text, (own.get(text) ?? 0) + 1);
  all.publish(channel, text);
}

async function hearUsage() {
  const [last] = await publisher.xrevrange(REDIS.usage, '+', '-', 'COUNT', 1);
  if (last?.[1].length === 8 && (last[1][5]?.length ?? 0) < REPLAYED_USAGE_LENGTH_MAX)
    recent.add(recent.usage, last[1]);
}

let batches = 0;
async function some() {
  const all = publisher.pipeline();
  if (batches++ % LONG_EVERY === 0) {
    publish(all, REDIS.invalidations, TOO_LONG_OR_DEEP[batches % 2] ?? '');
    publish(all, REDIS.acknowledgements, 'x'.repeat(ACKNOWLEDGEMENT_LENGTH_MAX + 1));
    await hearUsage();
  }
  const digests = awaited(recent);
  for (let i = 0; i < FEED_MESSAGES; i++)
    publish(all, REDIS.invalidations, forgedInvalidation(any(recent.invalidations)));
  for (let i = 0; i < ACKNOWLEDGEMENTS; i++) {
    const text = forgedAcknowledgement(any(recent.acknowledgements), any(verifiers), any(digests));
    publish(all, REDIS.acknowledgements, text);
  }
  for (let i = 0; i < USAGE_MESSAGES; i++) {
    sent++;
    all.xadd(REDIS.usage, 'MAXLEN', '~', REDIS.usageStreamLengthMax, '*', ...forgedUsage(any(recent.usage)));
  }
  await all.exec();
}

async function huge() {
  const all = publisher.pipeline();
  for (const channel of [REDIS.invalidations, REDIS.acknowledgements]) publish(all, channel, 'x'.repeat(HUGE_LENGTH));
  // What BullMQ finds in its queues can be forged too.
  for (const queue of ['tokens', 'audit', 'usage', 'notices']) {
    sent++;
    all.hset(`${REDIS.queues}:${queue}:forged`, 'name', 'forged', 'data', '{"', 'opts', '[]');
    all.lpush(`${REDIS.queues}:${queue}:wait`, 'forged');
  }
  await all.exec();
}

subscriber.on('message', (channel, text) => {
  const left = own.get(text) ?? 0;
  if (left > 1) own.set(text, left - 1);
  else own.delete(text);
  if (left > 0) return;
  recent.add(channel === REDIS.invalidations ? recent.invalidations : recent.acknowledgements, text);
});
await subscriber.subscribe(REDIS.invalidations, REDIS.acknowledgements);
parentPort?.once('message', () => {
  running = false;
});
const startedMs = performance.now();
const body = 'x'.repeat(USAGE_BODY_LENGTH_MAX + 1);
await publisher.xadd(REDIS.usage, '*', 'verifier', randomUUID(), 'body', body, 'mac', text43());
parentPort?.postMessage('begun');
for (let hugeAtMs = startedMs; running; ) {
  const dueMs = performance.now() + EVERY_MS;
  await some();
  if (performance.now() >= hugeAtMs) {
    await huge();
    hugeAtMs += HUGE_EVERY_MS;
  }
  await sleep(Math.max(0, dueMs - performance.now()));
}
publisher.disconnect();
subscriber.disconnect();
parentPort?.postMessage({ sent, seconds: (performance.now() - startedMs) / 1_000 });
