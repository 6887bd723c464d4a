import { type Job, NOTHING } from '../job.js';
import { nextBatches, settle } from './stream.js';
import { applyBatch } from './usage.service.js';

/**
 * A batch is taken off the stream only after its transaction has committed, and a batch that comes again finds its
 * number in `usage_batches`: killed anywhere, nothing is lost and nothing counts twice.
 */
export const drainUsage: Job = {
  name: 'drain-usage',
  queue: 'usage',
  everyMs: 1_000,
  parallel: 2,
  description: 'Usage batches of the verifiers are added up by token, hour, route and verdict, and by caller.',
  async step(context) {
    const messages = await nextBatches(context, 50);
    if (messages.length === 0) return NOTHING;
    for (const message of messages) {
      const { read } = message;
      const outcome = typeof read === 'string' ? read : await applyBatch(context, read);
      await settle(context, message);
      context.metrics.usageBatches.inc({ outcome });
      if (typeof read !== 'string') context.metrics.denialsDropped.inc(read.batch.denialsDropped);
      if (context.signal.aborted) break;
    }
    return { done: messages.length, more: true };
  },
};
