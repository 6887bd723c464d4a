import { REDIS, type TokensMethods } from '@latchkey/contracts';
import type { Caller } from '@latchkey/runtime';
import type { Feed, TokenSource } from '@latchkey/verifier';
import type { Redis } from 'ioredis';

/** The authority over gRPC. */
export function tokenSource(caller: Caller<TokensMethods>): TokenSource {
  return {
    lookup: (hash) => caller.lookup({ hash }),
    renew: (request) => caller.renew(request),
    release: async (verifierId) => void (await caller.release({ verifierId })),
  };
}

/**
 * Invalidations and acknowledgements over Redis.
 * @param subscriber a connection that does nothing else
 */
export function redisFeed(subscriber: Redis, publisher: Redis): Feed {
  return {
    subscribe(onMessage) {
      const listener = (channel: string, text: string) => {
        if (channel === REDIS.invalidations) onMessage(text);
      };
      // ioredis subscribes again by itself after a lost connection; the first time may have to wait for one.
      const subscribe = () => {
        subscriber.subscribe(REDIS.invalidations).catch(() => {
          subscriber.once('ready', subscribe);
        });
      };
      subscriber.on('message', listener);
      if (subscriber.status === 'ready') subscribe();
      else subscriber.once('ready', subscribe);
      return () => {
        subscriber.off('message', listener);
        subscriber.off('ready', subscribe);
      };
    },
    acknowledge: async (text) => void (await publisher.publish(REDIS.acknowledgements, text)),
  };
}
