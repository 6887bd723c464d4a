import { REDIS, type TokensMethods } from '@latchkey/contracts';
import { type Caller, renewalError, subscribe } from '@latchkey/runtime';
import { type Feed, RenewalRefused, type TokenSource } from '@latchkey/verifier';
import type { Redis } from 'ioredis';

/** The token-service over gRPC. */
export function tokenSource(caller: Caller<TokensMethods>): TokenSource {
  return {
    lookup: (hash) => caller.lookup({ hash }),
    renew: (request) =>
      caller.renew(request).catch((error: Error) => {
        const reason = renewalError(error);
        throw reason ? new RenewalRefused(reason, error.message) : error;
      }),
    release: async (request) => void (await caller.release(request)),
  };
}

/**
 * Invalidations and acknowledgements over Redis.
 * @param subscriber a connection used for nothing else
 */
export function redisFeed(subscriber: Redis, publisher: Redis): Feed {
  return {
    subscribe: (onMessage) => subscribe(subscriber, REDIS.invalidations, onMessage),
    acknowledge: async (text) => void (await publisher.publish(REDIS.acknowledgements, text)),
  };
}
