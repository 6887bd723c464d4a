import type { Job } from '../job.js';

export const sealAudit: Job = {
  name: 'seal-audit',
  queue: 'audit',
  everyMs: 400,
  description: 'New audit events are sealed into the hash chain; a signed checkpoint follows when one is due.',
  rest: 1,
  step: ({ maintenance }) => maintenance.sealAudit({ limit: 250 }, { timeoutMs: 12_000 }),
};
