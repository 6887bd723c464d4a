import type { Job } from '../job.js';

export const revokeIdle: Job = {
  name: 'revoke-idle',
  queue: 'tokens',
  everyMs: 60_000,
  description: 'Tokens unused for longer than the policy allows are revoked as policy.',
  rest: 1,
  step: ({ maintenance }) => maintenance.revokeIdle({ limit: 100 }, { timeoutMs: 12_000 }),
};
