import type { Job } from '../job.js';

export const endOverlaps: Job = {
  name: 'end-overlaps',
  queue: 'tokens',
  everyMs: 1_000,
  description: 'Rotated tokens whose overlap has ended are revoked as superseded.',
  rest: 1,
  step: ({ maintenance }) => maintenance.endOverlaps({ limit: 100 }, { timeoutMs: 12_000 }),
};
