import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from '@latchkey/testing';
import { isSessionKept, issue, narrow, oldCredentials, populate, refusedTokens, undone } from './population.mjs';
import { Presenter } from './presenter.mjs';
import { must } from './requests.mjs';

/**
 * @typedef {import('./requests.mjs').Cluster} Cluster
 * @typedef {import('./place.mjs').Installation} Installation
 *
 * @typedef {(restored: () => void) => Promise<void>} Restoring puts the database back, and calls `restored` once it accepts
 * connections
 */

/**
 * @template {Installation} Place
 * @typedef {object} Drill
 * @property {string} id
 * @property {string} name
 * @property {boolean} [ledger] whether the token-services keep one; default true
 * @property {boolean} [standBy] whether each commit waits for a standby
 * @property {'nobody' | 'ledger' | 'verifiers' | 'revoke'} settledBy what must settle it: nothing was lost; the ledger; the
 * renewals that verifiers remember; an administrator, who revokes all that existed
 * @property {string} [reason] why it is unsettled
 * @property {(place: Place) => Promise<void>} [prepare] before anything is issued
 * @property {(place: Place) => Promise<Restoring>} backUp
 * @property {(place: Place) => Promise<void>} [lose] makes the database lose what is done after it: the last revocation
 */

/**
 * @typedef {object} Outcome
 * @property {number} tokens revoked ones
 * @property {string[]} revived where and when a revoked token was accepted: the first of each
 * @property {string[]} refused where and when a good token was refused: the first of each
 * @property {string[]} oldCredentials passwords and sessions of before that were accepted
 * @property {number | null} wholeS until good tokens were accepted at both gateways; null: never
 * @property {number | null} outageS the longest time for which a good token was not accepted somewhere; null: they were all revoked
 * @property {string} seen what the operator saw
 * @property {string[]} broken what else is not as it is promised
 * @property {number} checks
 */

const WHOLE_TIMEOUT_MS = 240_000;
const AFTERWARDS_MS = 10_000;
const UNSETTLED_TIMEOUT_MS = 90_000;
/** How long a restore is left unsettled by the administrator. */
const UNSETTLED_MS = 2_000;
/** Old passwords are refused so often at most while all recovers: ten failures would lock the account. */
const TRIES = 6;
const TRY_EVERY_MS = 300;

/**
 * @template {Installation} Place
 * @param {Drill<Place>} drill @param {number} tokens @param {(drill: Drill<Place>) => Promise<Place>} open
 * @returns {Promise<Outcome>}
 */
export async function run(drill, tokens, open) {
  const place = await open(drill);
  try {
    return await within(drill, place, tokens);
  } catch (cause) {
    const logs = await place.logs().then(
      (all) => all.slice(-4_000),
      (error) => `nothing that can be read (${error.message})`,
    );
    throw new Error(`${/** @type {Error} */ (cause).message}; the token-service printed:\n${logs}`, { cause });
  } finally {
    await place.close();
  }
}

/** @template {Installation} Place @param {Drill<Place>} drill @param {Place} place @param {number} tokens @returns {Promise<Outcome>} */
async function within(drill, place, tokens) {
  const { cluster, server } = place;
  await drill.prepare?.(place);
  await isAnswering(cluster);
  const was = await populate(cluster, tokens);
  const bad = refusedTokens(was);
  const usedBefore = new Presenter(cluster, [...bad, ...was.kept], place.presentEveryMs);
  await waitFor(() => usedBefore.areAccepted([...bad, ...was.kept], 0), { timeoutMs: 120_000, what: 'every token' });
  await usedBefore.stop();
  if (drill.ledger !== false)
    await waitFor(async () => (await server.query('SELECT 1 FROM ledger_streams WHERE sequence > 0')).length > 0);
  const restore = await drill.backUp(place);
  await isAnswering(cluster);
  const receipts = await narrow(cluster, was, async () => drill.lose?.(place));

  const presenter = new Presenter(cluster, [...bad, ...was.kept], place.presentEveryMs);
  const isRestored = drill.settledBy === 'ledger' || drill.settledBy === 'revoke';
  /** What was accepted, and when first. @type {Map<string, { startMs: number, endMs: number }>} */
  const accepted = new Map();
  const tryOld = async () => {
    const tried = await oldCredentials(cluster, was, isRestored);
    for (const { what, ...when } of tried.accepted) if (!accepted.has(what)) accepted.set(what, when);
    return tried.isDecided;
  };
  let tries = Promise.resolve();
  let isOver = false;
  let restoredMs = Number.POSITIVE_INFINITY;
  let settleMs = Number.POSITIVE_INFINITY;
  /** @type {number | null} */
  let wholeMs = null;
  const good = [...was.kept];
  let seen = '';
  /** @type {string[]} */
  const broken = [];
  try {
    await sleep(500);
    await restore(() => {
      restoredMs = performance.now();
      tries = (async () => {
        for (let left = TRIES; left > 0 && !isOver; await sleep(TRY_EVERY_MS)) if (await tryOld()) left--;
      })();
      tries.catch(() => undefined); // thrown where it is awaited
    });
    if (!Number.isFinite(restoredMs)) throw new Error('the drill did not say when the database was restored');
    if (drill.settledBy === 'revoke') {
      let signIns = 0;
      // What is noticed ends sessions from before it, also between one request and the next.
      const beSignedIn = async () => {
        if ((await cluster.call('GET', '/v1/session')).status !== 401) return;
        await signInAgain(cluster);
        signIns++;
      };
      const isUnsettled = await waitFor(
        async () => {
          await beSignedIn();
          return (await restoreOf(cluster))?.state === 'unsettled';
        },
        { timeoutMs: UNSETTLED_TIMEOUT_MS, intervalMs: 200 },
      ).catch((error) => {
        broken.push(`not unsettled after ${UNSETTLED_TIMEOUT_MS / 1_000} s (${error.cause?.message ?? 'no error'})`);
        return false;
      });
      await beSignedIn();
      seen = `${seenIn(await restoreOf(cluster))}, signed in ${signIns} times`;
      if (isUnsettled) {
        // What is issued after the restore works, whatever is decided; what was issued before does not, if it is revoked.
        good.splice(0, good.length, await issue(cluster, 'new 1'), await issue(cluster, 'new 2'));
        for (const token of good) presenter.add(token);
        await sleep(UNSETTLED_MS);
        settleMs = performance.now();
        const { effective } = await must(cluster, 'POST', '/v1/system/restore/settle', { choice: 'revoke' });
        if (!effective) broken.push('the decision was not effective');
      }
    }
    await waitFor(() => presenter.areAccepted(good, restoredMs), {
      timeoutMs: WHOLE_TIMEOUT_MS,
      intervalMs: 50,
    }).then(
      () => {
        wholeMs = performance.now();
      },
      () => broken.push(`not whole after ${WHOLE_TIMEOUT_MS / 1_000} s`),
    );
    await sleep(AFTERWARDS_MS);
    isOver = true;
    await tries;
    if (wholeMs !== null && !presenter.areAccepted(good, performance.now() - 5_000))
      broken.push('a good token was not accepted at the end');
  } finally {
    isOver = true;
    await presenter.stop();
  }
  await tryOld();
  const isKept = await isSessionKept(cluster, was);
  await signInAgain(cluster);
  const restored = await restoreOf(cluster);
  seen = [seen, seenIn(restored), loggedBy(await place.logs())].filter(Boolean).join('; ');
  if (drill.settledBy === 'nobody' && restored) broken.push('a restore was recorded');
  if (drill.settledBy !== 'nobody' && restored?.choice !== drill.settledBy)
    broken.push(`settled by ${restored?.choice ?? 'nobody'}, and not by ${drill.settledBy}`);
  if (drill.reason && restored?.reason !== drill.reason)
    broken.push(`the reason is ${restored?.reason}, and not ${drill.reason}`);
  if (drill.settledBy === 'nobody' && !isKept) broken.push('a session ended');
  if (drill.settledBy !== 'revoke') broken.push(...(await undone(cluster, was)));
  const { ok } = await must(cluster, 'GET', '/v1/audit/verify');
  if (!ok) broken.push('the audit chain is broken');
  const expected = drill.ledger === false ? 'off' : 'written';
  for (const [ledger, count] of Object.entries(receipts))
    if (ledger !== expected) broken.push(`the ledger is ${ledger} in ${count} receipts, and not ${expected}`);

  const { checks } = presenter;
  const keptIds = new Set(was.kept.map(({ id }) => id));
  const badIds = new Set(bad.map(({ id }) => id));
  const revokedIds = new Set(was.victims.map(({ id }) => id));
  const names = new Map([...bad, ...was.kept, ...good].map((token, i) => [token.id, `token ${i}`]));
  const told = (/** @type {import('./presenter.mjs').Check} */ { token, place: at, startMs, status }) =>
    `${names.get(token)}: ${status} at ${at} ${((startMs - restoredMs) / 1_000).toFixed(2)} s after the restore`;
  const firsts = (/** @type {typeof checks} */ list) =>
    [...Map.groupBy(list, ({ token }) => token).values()].flatMap(([first]) => (first ? [told(first)] : []));
  const isDenied = (/** @type {number | null} */ status) => status === 401 || status === 403;
  const accepts = checks.filter(({ token, status }) => badIds.has(token) && status === 200);
  const others = accepts.filter(({ token }) => !revokedIds.has(token));
  broken.push(...firsts(others).map((what) => `disabled, or of a closed project or disabled person: ${what}`));
  return {
    tokens: was.victims.length,
    revived: firsts(accepts.filter(({ token }) => revokedIds.has(token))),
    refused: firsts(
      checks.filter(
        ({ token, status, endMs }) =>
          isDenied(status) && !badIds.has(token) && (endMs < settleMs || !keptIds.has(token)),
      ),
    ),
    oldCredentials: [...accepted].map(
      ([what, { startMs, endMs }]) => `${what}: accepted, asked at ${timeOf(startMs)}, responded at ${timeOf(endMs)}`,
    ),
    wholeS: wholeMs === null ? null : (wholeMs - restoredMs) / 1_000,
    outageS:
      drill.settledBy === 'revoke' ? null : longestOutage(checks.filter(({ token }) => keptIds.has(token))) / 1_000,
    seen,
    broken,
    checks: checks.length,
  };
}

/** Waits until the token-service has noticed a restart of PostgreSQL, and has only connections that work. @param {Cluster} cluster */
const isAnswering = (cluster) =>
  waitFor(
    async () => {
      const responses = await Promise.all(Array.from({ length: 20 }, () => cluster.call('GET', '/v1/session')));
      await sleep(500);
      const again = await cluster.call('GET', '/v1/session');
      return [...responses, again].every(({ status }) => status === 200);
    },
    { timeoutMs: 120_000, what: 'the session of the administrator' },
  );

/** @param {Cluster} cluster */
const signInAgain = (cluster) =>
  waitFor(async () => (await cluster.call('POST', '/v1/session', cluster.admin)).status === 200, {
    timeoutMs: 120_000,
    intervalMs: 200,
    what: 'signing in as the administrator',
  });

/** As in the logs. @param {number} ms of the monotonic clock */
const timeOf = (ms) => new Date(performance.timeOrigin + ms).toISOString().slice(11, 23);

/** @param {Cluster} cluster @returns {Promise<import('@latchkey/contracts').Restore | null>} */
const restoreOf = async (cluster) => (await must(cluster, 'GET', '/v1/system')).restore;

/** @param {import('@latchkey/contracts').Restore | null} restore */
const seenIn = (restore) =>
  restore
    ? `${restore.state}/${restore.reason}/${restore.choice}, ${restore.reapplied} applied again, ${restore.sessionsEnded} sessions ended, ${restore.mustSetPassword} must set a password${restore.notReapplied.length ? `, ${restore.notReapplied.length} not applied again` : ''}`
    : 'nothing recorded';

/** The longest time between two times at which a token was accepted at a place. @param {readonly import('./presenter.mjs').Check[]} checks */
function longestOutage(checks) {
  const byPlace = Map.groupBy(checks, ({ token, place }) => `${place} ${token}`);
  return Math.max(
    ...[...byPlace.values()].map((list) => {
      const times = list.filter(({ status }) => status === 200).map(({ endMs }) => endMs);
      return Math.max(0, ...times.slice(1).map((ms, i) => ms - (times[i] ?? ms)));
    }),
  );
}

/** Messages about the restore in logs, without what follows the first sentence. @param {string} logs */
function loggedBy(logs) {
  const messages = logs.split('\n').flatMap((line) => {
    try {
      const { time, msg } = JSON.parse(line);
      return [`${String(time).slice(11, 23)} ${msg}`];
    } catch {
      return []; // a line that is not finished
    }
  });
  const found = messages.filter((message) => /put back to an earlier state|settled the restore/.test(message));
  return [...new Set(found)].map((message) => `"${message.split(/: (?=changes|tokens)/)[0]}"`).join(', ');
}
