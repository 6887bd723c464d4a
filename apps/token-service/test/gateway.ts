import { REDIS } from '@latchkey/contracts';
import { createLogger, createRedis, firstParty, subscribe, systemClock, tokensCaller } from '@latchkey/runtime';
import { Verifier } from '@latchkey/verifier';
import type { TokenService } from '../src/app.js';
import { GATEWAY_RPC_SECRET, type World } from './harness.js';
import { newClaim } from './invalidation/watching.js';

/** A verifier set up as in a gateway: gRPC to one token-service, Redis for the feed. */
export async function gatewayOf(w: World, service: TokenService) {
  const logger = createLogger('test', 'fatal');
  const [publisher, subscriber] = [createRedis(w.redis.url, 'test', logger), createRedis(w.redis.url, 'test', logger)];
  const rpc = tokensCaller({
    address: service.rpcAddress,
    authorization: firstParty(GATEWAY_RPC_SECRET),
    timeoutMs: 5_000,
  });
  const gateway = {
    /** While this is set, it receives invalidations over Redis only, and its lease expires. */
    isCutOff: false,
    verifier: new Verifier({
      name: 'gateway',
      newClaim,
      clock: systemClock,
      source: {
        lookup: (sha256) => rpc.lookup({ hash: sha256 }),
        renew: async (request) => {
          if (gateway.isCutOff) throw new Error('the token-service cannot be reached');
          return rpc.renew(request);
        },
        release: async (request) => void (await rpc.release(request)),
      },
      feed: {
        subscribe: (onMessage) => subscribe(subscriber, REDIS.invalidations, onMessage),
        acknowledge: async (text) => void (await publisher.publish(REDIS.acknowledgements, text)),
      },
    }),
    close: async () => {
      await gateway.verifier.stop();
      rpc.close();
      publisher.disconnect();
      subscriber.disconnect();
    },
  };
  await gateway.verifier.start();
  return gateway;
}
