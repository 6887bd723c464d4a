import { REDIS, type TokensMethods } from '@latchkey/contracts';
import { type Caller, hear, renewalRefusal } from '@latchkey/runtime';
import { type Feed, RenewalRefused, type TokenSource } from '@latchkey/verifier';
import type { Redis } from 'ioredis';

/** The authority over gRPC. */
export function tokenSource(caller: Caller<TokensMethods>): TokenSource {
  return {
    lookup: (hash) => caller.lookup({ hash }),
    renew: (request) =>
      caller.renew(request).catch((error: Error) => {
        const refusal = renewalRefusal(error);
        throw refusal ? new RenewalRefused(refusal, error.message) : error;
      }),
    release: async (request) => void (await caller.release(request)),
  };
}

/**
 * Invalidations and acknowledgements over Redis.
 * @param subscriber a connection that does nothing else
 */
export function redisFeed(subscriber: Redis, publisher: Redis): Feed {
  return {
    subscribe: (onMessage) => hear(subscriber, REDIS.invalidations, onMessage),
    acknowledge: async (text) => void (await publisher.publish(REDIS.acknowledgements, text)),
  };
}
