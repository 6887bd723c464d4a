import type { Job } from '../job.js';

export const prune: Job = {
  name: 'prune',
  queue: 'tokens',
  everyMs: 60_000,
  description: "The token-service's rows past their retention are removed; next months' audit partitions are created.",
  rest: 1,
  step: ({ maintenance }) => maintenance.prune({ limit: 1_000 }, { timeoutMs: 12_000 }),
};
