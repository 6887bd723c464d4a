import type { Job } from '../job.js';

export const continueExposures: Job = {
  name: 'continue-exposures',
  queue: 'tokens',
  everyMs: 5_000,
  description: 'Revocations of many tokens are completed if the process that began them was stopped.',
  step: ({ maintenance }) => maintenance.continueExposures({ limit: 10 }, { timeoutMs: 12_000 }),
};
