import type { Job } from '../job.js';

export const continueExposures: Job = {
  name: 'continue-exposures',
  queue: 'tokens',
  everyMs: 5_000,
  description: 'What exposed tokens were shown is ended to the last, where a process was stopped in the midst of it.',
  step: ({ maintenance }) => maintenance.continueExposures({ limit: 10 }, { timeoutMs: 12_000 }),
};
