/**
 * A verifier that is replaced, and others that call themselves by its id. An id is handed out for a claim that only its
 * process knows, so a caller that renews under it gets nothing while its row is there, and confirms nothing in its name.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { bearer, firstParty, tokensCaller } from '@latchkey/runtime';
import { again, inBackground, isVerifierOf } from './doing.mjs';
import { at } from './places.mjs';

/** The sleeper wakes after so long, when its lease has not been over for long enough by far. */
const ASLEEP_MS = 1_500;

/** Renews under an id that is another's, saying that it has applied everything. @param {string} address @param {string} authorization @param {string} verifierId @param {{ log: string, xid: string }} cursor */
function ghost(address, authorization, verifierId, cursor) {
  const caller = tokensCaller({ address, authorization });
  const request = { verifierId, name: 'ghost', cursor, claim: '', version: '', nonce: '' };
  return {
    verifierId,
    grantedAtMs: Number.POSITIVE_INFINITY,
    refused: 0,
    async renew() {
      try {
        await caller.renew(request);
        this.grantedAtMs = Math.min(this.grantedAtMs, performance.now());
      } catch {
        this.refused++; // which is what is promised
      }
    },
    /** A row that it was given is released, so that no revocation waits for it. */
    async close() {
      await caller.release({ verifierId, claim: request.claim }).catch(() => undefined);
      caller.close();
    },
  };
}

/** @returns {import('./trial.mjs').Scenario} */
function makeReplaced() {
  /** @type {ReturnType<typeof ghost>[]} */
  let ghosts = [];
  let sleeperId = '';
  let wokenMs = 0;
  return {
    name: 'a gateway killed and another started in its place, a second asleep, and others that renew under their ids',
    inject: async ({ cluster }) => {
      const [killed, sleeper] = [at(cluster.gateways, 0), at(cluster.gateways, 1)];
      const { body } = await cluster.call('POST', '/v1/tokens', { name: 'ghost', scopes: ['tokens:verify'] });
      const { secret } = /** @type {{ secret: string }} */ (body);
      const leases = await cluster.database.query(
        `SELECT v.verifier_id::text AS id, v.name, l.log::text AS log FROM leases v, invalidation_log l
         WHERE v.released_at IS NULL ORDER BY v.created_at DESC`,
      );
      const rows = /** @type {{ id: string, name: string, log: string }[]} */ (leases);
      const [killedRow, sleeperRow] = [rows.find(isVerifierOf(killed)), rows.find(isVerifierOf(sleeper))];
      if (!killedRow || !sleeperRow) throw new Error('a gateway has no lease');
      sleeperId = sleeperRow.id;
      const [address] = cluster.rpcAddresses;
      // Transaction ids that are still to come, and would pass any invalidation.
      const [next] = await cluster.database.query('SELECT (pg_current_xact_id()::text::bigint + 5)::text AS xid');
      const cursor = { log: killedRow.log, xid: String(next?.['xid']) };
      ghosts = [killedRow, sleeperRow].flatMap(({ id }) =>
        [firstParty(cluster.gatewayRpcSecret), bearer(secret)].map((who) => ghost(address ?? '', who, id, cursor)),
      );
      sleeper.process.pause();
      await killed.process.kill('SIGKILL');
      const starting = inBackground(() => killed.restart());
      const stop = again(100, () => Promise.all(ghosts.map((one) => one.renew())));
      const waking = inBackground(async () => {
        await sleep(ASLEEP_MS);
        wokenMs = performance.now();
        sleeper.process.resume();
      });
      return async () => {
        await Promise.all([starting(), waking()]);
        await stop();
        await Promise.all(ghosts.map((one) => one.close()));
      };
    },
    promises: (_, revocations) => [
      // Its lease was valid all the while, so no one else can have confirmed for it.
      ...revocations
        .filter(({ endMs }) => endMs < wokenMs)
        .map(({ token }) => `${token} was called effective while a gateway slept with its lease`),
      ...ghosts
        .filter(({ verifierId, grantedAtMs }) => verifierId === sleeperId && grantedAtMs < Number.POSITIVE_INFINITY)
        .map(() => 'another caller was given the id of a running gateway'),
      ...(ghosts.some(({ refused }) => refused === 0) ? ['a ghost was never refused: nothing was tried'] : []),
    ],
  };
}

export const replaced = makeReplaced();
