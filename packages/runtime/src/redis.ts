import { Redis, type RedisOptions } from 'ioredis';
import type { Logger } from 'pino';

/**
 * A Redis connection that keeps trying, with a log line when it is lost and when it is back.
 * Commands fail at once while it is away (no offline queue), so that nothing waits on Redis by accident;
 * BullMQ needs other options and makes its own.
 */
export function createRedis(url: string, name: string, logger: Logger, options: RedisOptions = {}): Redis {
  const redis = new Redis(url, {
    connectionName: name,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 2_000,
    keepAlive: 5_000,
    // Its own subscribing leaves a rejection that nobody handles when the connection is lost again: see `hear`.
    autoResubscribe: false,
    retryStrategy: (attempt) => Math.min(50 * 2 ** Math.min(attempt, 6), 1_000),
    ...options,
  });
  let lost = false;
  redis.on('error', (error: Error) => {
    if (!lost) logger.warn({ connection: name, reason: error.message }, 'Redis is away; trying again');
    lost = true;
  });
  redis.on('ready', () => {
    if (lost) logger.info({ connection: name }, 'Redis is back');
    lost = false;
  });
  return redis;
}

/**
 * Hears every message of a channel, from each new connection on. Messages published while there is none are lost.
 * @param subscriber a connection that does nothing else
 * @returns ends it
 */
export function hear(subscriber: Redis, channel: string, onMessage: (text: string) => void): () => void {
  const listener = (from: string, text: string) => {
    if (from === channel) onMessage(text);
  };
  const subscribe = () => {
    subscriber.subscribe(channel).catch(() => {
      // Lost before it was subscribed: an open connection is made anew, a closed one becomes ready by itself.
      if (subscriber.status === 'ready') subscriber.disconnect(true);
    });
  };
  subscriber.on('message', listener);
  subscriber.on('ready', subscribe);
  if (subscriber.status === 'ready') subscribe();
  return () => {
    subscriber.off('message', listener);
    subscriber.off('ready', subscribe);
  };
}
