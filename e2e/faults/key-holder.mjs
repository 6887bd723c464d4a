/**
 * An attacker who has what a gateway has, and what a third party has: the right to renew, and with it the keys of
 * verifiers of their own. By them they acknowledge for the gateways, whose subscribers they cut off meanwhile, and renew
 * with cursors that claim everything. A verifier's key speaks for that verifier alone.
 */
import { randomBytes } from 'node:crypto';
import { digestOf, parseInvalidationEvent, REDIS, signAcknowledgement } from '@latchkey/contracts';
import { bearer, firstParty, tokensCaller } from '@latchkey/runtime';
import { again, counted, redisOf } from './doing.mjs';

/** @param {string} address @param {string} authorization */
async function takeLease(address, authorization) {
  const caller = tokensCaller({ address, authorization });
  const claim = randomBytes(32).toString('base64url');
  const renew = (/** @type {{ log: string, xid: string } | null} */ cursor, nonce = '') =>
    caller.renew({ verifierId: '', name: 'thief', cursor, claim, version: '', nonce });
  let last = await renew(null);
  return {
    verifierId: last.verifierId,
    key: last.ackKey,
    async claimAll() {
      const cursor = last.cursor && { log: last.cursor.log, xid: String(BigInt(last.cursor.xid) + 3n) };
      last = await renew(cursor, last.nonce).catch(() => last); // it is tried again
    },
    async close() {
      await caller.release({ verifierId: last.verifierId, claim }).catch(() => undefined); // it lapses by itself
      caller.close();
    },
  };
}

/** @returns {import('./trial.mjs').Scenario} */
function makeKeyHolder() {
  let dropped = 0;
  return {
    name: "an attacker with verifiers' keys acknowledges for others, and cuts them off",
    inject: async ({ cluster }) => {
      const { body } = await cluster.call('POST', '/v1/tokens', { name: 'thief', scopes: ['tokens:verify'] });
      const { secret } = /** @type {{ secret: string }} */ (body);
      const [address = ''] = cluster.rpcAddresses;
      const leases = await cluster.database.query('SELECT verifier_id FROM leases WHERE released_at IS NULL');
      const others = leases.map((row) => String(row['verifier_id']));
      const own = await Promise.all(
        [firstParty(cluster.gatewayRpcSecret), bearer(secret)].map((who) => takeLease(address, who)),
      );
      const [publisher, subscriber] = [redisOf(cluster), redisOf(cluster)];
      subscriber.on('message', (_, text) => {
        const event = parseInvalidationEvent(text);
        if (!event) return;
        const digests = event.invalidations.map((invalidation) => digestOf(event.log, invalidation));
        for (const { key, verifierId } of own)
          for (const named of [verifierId, ...others]) {
            const acknowledgement = JSON.stringify(signAcknowledgement(key, named, digests));
            void publisher.publish(REDIS.acknowledgements, acknowledgement).catch(() => undefined);
          }
      });
      await subscriber.subscribe(REDIS.invalidations);
      const stopCutting = again(20, async () => {
        const list = String(await publisher.call('CLIENT', 'LIST'));
        for (const line of list.split('\n').filter((one) => one.includes('name=gateway-feed'))) {
          const [, id] = /\bid=(\d+)/.exec(line) ?? [];
          if (id) await publisher.call('CLIENT', 'KILL', 'ID', id).catch(() => undefined); // gone already
        }
      });
      const stopClaiming = again(100, () => Promise.all(own.map((one) => one.claimAll())));
      return async () => {
        await Promise.all([stopCutting(), stopClaiming()]);
        dropped = await counted(
          cluster.tokenServices,
          'latchkey_acknowledgements_dropped_total',
          'reason="not_authentic"',
        );
        await Promise.all(own.map((one) => one.close()));
        publisher.disconnect();
        subscriber.disconnect();
      };
    },
    promises: () => (dropped === 0 ? ['no acknowledgement was dropped as not authentic: nothing was tried'] : []),
  };
}

export const keyHolder = makeKeyHolder();
