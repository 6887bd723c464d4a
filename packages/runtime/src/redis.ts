import { Redis, type RedisOptions } from 'ioredis';
import type { Logger } from 'pino';
import { StartError } from './service.js';

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

/** Longest wait for what Redis says about itself; without it the start continues. */
const INFO_TIMEOUT_MS = 1_000;

/**
 * Checks at the start that Redis is a single server, or the primary of several: keys of different slots are used together,
 * and a Sentinel holds none. One that is unavailable, or forbids INFO, is not checked.
 * @param needs `noeviction`, for queues: logs a warning when Redis removes keys by itself
 * @throws StartError that names a cluster or a Sentinel
 */
export async function checkRedis(redis: Redis, logger: Logger, needs?: 'noeviction'): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(resolve, INFO_TIMEOUT_MS, '');
  });
  const ready = redis.status === 'ready' ? Promise.resolve() : new Promise<void>((done) => redis.once('ready', done));
  const info = await Promise.race([ready.then(() => redis.info()).catch(() => ''), late]);
  clearTimeout(timer);
  const fieldOf = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const mode = fieldOf('redis_mode') ?? fieldOf('server_mode');
  if (mode === 'cluster' || fieldOf('cluster_enabled') === '1')
    throw new StartError(
      'Redis runs in cluster mode (cluster_enabled:1), which is not supported: Latchkey uses several keys in one step. ' +
        'Let REDIS_URL name a server without it; one with a replica is enough, since nothing in Redis must survive',
    );
  if (mode === 'sentinel')
    throw new StartError(
      'REDIS_URL names a Sentinel, which is not supported. Let it name the Redis server itself, or an address that follows the primary',
    );
  const policy = fieldOf('maxmemory_policy');
  if (needs === 'noeviction' && policy !== undefined && policy !== 'noeviction')
    logger.warn(
      { maxmemoryPolicy: policy },
      'Redis removes keys when its memory is full, queued jobs and usage among them: set maxmemory-policy noeviction',
    );
}
