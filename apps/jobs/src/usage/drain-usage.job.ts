import { type Job, NOTHING } from '../job.js';
import { acknowledge, nextBatches } from './stream.js';
import { applyBatch } from './usage.service.js';

/**
 * A batch is deleted from the stream only after its transaction has committed, and `usage_batches` has the numbers of
 * those already counted: killed at any point, nothing is lost and nothing counts twice.
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
      await acknowledge(context, message);
      context.metrics.usageBatches.inc({ outcome });
      if (typeof read !== 'string') context.metrics.denialsDropped.inc(read.batch.denialsDropped);
      if (context.signal.aborted) break;
    }
    return { done: messages.length, more: true };
  },
};
