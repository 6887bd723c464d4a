import type { Job } from '../job.js';

export const continueExposures: Job = {
  name: 'continue-exposures',
  queue: 'tokens',
  everyMs: 5_000,
  description:
    'Revocations that reach many tokens are carried to the end where a process was stopped in the midst of one.',
  step: ({ maintenance }) => maintenance.continueExposures({ limit: 10 }, { timeoutMs: 12_000 }),
};
