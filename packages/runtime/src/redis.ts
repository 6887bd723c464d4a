import { Redis, type RedisOptions } from 'ioredis';
import type { Logger } from 'pino';

/**
 * For `retryStrategy`: reconnects with the password of this moment, because it can change.
 * @param delayMs by the number of the attempt, from 1
 */
export const reconnectingTo = (address: () => string, delayMs: (attempt: number) => number) =>
  // ioredis calls it as a method of the connection's own options, and reads these when it connects.
  function retryStrategy(this: RedisOptions, attempt: number): number {
    const { password } = new URL(address());
    if (password) this.password = decodeURIComponent(password);
    return delayMs(attempt);
  };

/**
 * A Redis connection that reconnects, and logs when it is lost and restored. Commands fail at once meanwhile (no offline
 * queue), so that nothing waits for Redis by accident; BullMQ needs other options and creates its own.
 * @param url its password can change
 */
export function createRedis(
  url: string | (() => string),
  name: string,
  logger: Logger,
  options: RedisOptions = {},
): Redis {
  const address = typeof url === 'string' ? () => url : url;
  const redis = new Redis(address(), {
    connectionName: name,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 2_000,
    keepAlive: 5_000,
    // ioredis's own leaves an unhandled rejection when the connection is lost again: see `subscribe`.
    autoResubscribe: false,
    retryStrategy: reconnectingTo(address, (attempt) => Math.min(50 * 2 ** Math.min(attempt, 6), 1_000)),
    ...options,
  });
  let lost = false;
  redis.on('error', (error: Error) => {
    if (!lost) logger.warn({ connection: name, reason: error.message }, 'Redis is unavailable; retrying');
    lost = true;
  });
  redis.on('ready', () => {
    if (lost) logger.info({ connection: name }, 'Redis is available again');
    lost = false;
  });
  return redis;
}

/**
 * Subscribes to a channel, again on each reconnect. Messages published while there is no connection are lost.
 * @param subscriber a connection used for nothing else
 * @returns a function that unsubscribes
 */
export function subscribe(subscriber: Redis, channel: string, onMessage: (text: string) => void): () => void {
  const listener = (from: string, text: string) => {
    if (from === channel) onMessage(text);
  };
  const subscribe = () => {
    subscriber.subscribe(channel).catch(() => {
      // Subscribing failed: reconnect an open connection; a closed one reconnects by itself.
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
