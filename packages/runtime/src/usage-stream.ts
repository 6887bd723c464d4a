import { REDIS, type UsageBatchEvent, usageFields } from '@latchkey/contracts';
import type { Redis } from 'ioredis';

/**
 * The Redis stream to which verifiers report usage, and from which jobs reads it; bounded, the oldest batches are dropped.
 * @param redis without an offline queue and with a command timeout, so that sending a batch fails soon
 */
export function usageStream(redis: Pick<Redis, 'xadd' | 'on'>) {
  const { usage, usageStreamLengthMax } = REDIS;
  return {
    send: async (event: UsageBatchEvent): Promise<void> =>
      void (await redis.xadd(usage, 'MAXLEN', '~', usageStreamLengthMax, '*', ...usageFields(event))),
    onReturn: (callback: () => void): void => void redis.on('ready', callback),
  };
}
