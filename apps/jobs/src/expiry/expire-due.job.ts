import type { Job } from '../job.js';

/** Cost depends on what is due: the token-service reads an index of expiry times. Checks never wait for this. */
export const expireDue: Job = {
  name: 'expire-due',
  queue: 'tokens',
  everyMs: 1_000,
  description: 'Tokens past their expiry become `expired`, each with its audit event.',
  rest: 2,
  // Small steps: calls of the management API wait for the step that is running.
  step: ({ maintenance }) => maintenance.expireDue({ limit: 150 }, { timeoutMs: 12_000 }),
};
