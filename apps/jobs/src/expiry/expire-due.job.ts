import type { Job } from '../job.js';

/** Cost follows what is due: the token-service reads an index of ends still ahead, and checks never wait for this. */
export const expireDue: Job = {
  name: 'expire-due',
  queue: 'tokens',
  everyMs: 1_000,
  description: 'Tokens whose end has passed become `expired`, each with its audit event.',
  rest: 2,
  // Small steps: while the token-service is at one, calls of its management API wait.
  step: ({ maintenance }) => maintenance.expireDue({ limit: 150 }, { timeoutMs: 12_000 }),
};
