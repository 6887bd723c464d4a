import { REDIS, type UsageBatchEvent, usageFields } from '@latchkey/contracts';
import type { Redis } from 'ioredis';

/**
 * The Redis stream that jobs reads usage from, as verifiers report to it; bounded, the oldest batches go first.
 * @param redis without an offline queue and with a command timeout, so that a batch that is not taken fails soon
 */
export function usageStream(redis: Pick<Redis, 'xadd' | 'on'>) {
  const { usage, usageStreamLengthMax } = REDIS;
  return {
    send: async (event: UsageBatchEvent): Promise<void> =>
      void (await redis.xadd(usage, 'MAXLEN', '~', usageStreamLengthMax, '*', ...usageFields(event))),
    onReturn: (callback: () => void): void => void redis.on('ready', callback),
  };
}
