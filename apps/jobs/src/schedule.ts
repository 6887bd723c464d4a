import { deliverAudit, sealAudit } from './audit/index.js';
import { canary } from './canary/index.js';
import { continueExposures, endOverlaps, expireDue, prune, revokeIdle } from './expiry/index.js';
import type { Job } from './job.js';
import {
  deliverNotices,
  deliverPasswordEmails,
  followAudit,
  noticeExpiring,
  reportUses,
  warnIdle,
} from './notices/index.js';
import { drainUsage, pruneUsage } from './usage/index.js';

/** All jobs of this service. */
export const SCHEDULE: readonly Job[] = [
  expireDue,
  endOverlaps,
  revokeIdle,
  continueExposures,
  prune,
  sealAudit,
  deliverAudit,
  drainUsage,
  pruneUsage,
  noticeExpiring,
  warnIdle,
  followAudit,
  reportUses,
  deliverNotices,
  deliverPasswordEmails,
  canary,
];

const byName = new Map(SCHEDULE.map((job) => [job.name, job]));

/** @throws Error for a name that is not in the schedule */
export function jobNamed(name: string): Job {
  const job = byName.get(name);
  if (!job) throw new Error(`no job is called ${JSON.stringify(name)}: another version of this service added it`);
  return job;
}
