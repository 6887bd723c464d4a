import { deliverAudit } from './audit/deliver-audit.job.js';
import { sealAudit } from './audit/seal-audit.job.js';
import { canary } from './canary/canary.job.js';
import { continueExposures } from './expiry/continue-exposures.job.js';
import { endOverlaps } from './expiry/end-overlaps.job.js';
import { expireDue } from './expiry/expire-due.job.js';
import { prune } from './expiry/prune.job.js';
import { revokeIdle } from './expiry/revoke-idle.job.js';
import type { Job } from './job.js';
import { deliverLetters } from './notices/deliver-letters.job.js';
import { deliverNotices } from './notices/deliver-notices.job.js';
import { followAudit } from './notices/follow-audit.job.js';
import { noticeExpiring } from './notices/notice-expiring.job.js';
import { reportUses } from './notices/report-uses.job.js';
import { warnIdle } from './notices/warn-idle.job.js';
import { drainUsage } from './usage/drain-usage.job.js';
import { pruneUsage } from './usage/prune-usage.job.js';

/** Everything that this service does by itself: what, in which queue, how often. */
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
  deliverLetters,
  canary,
];

const byName = new Map(SCHEDULE.map((job) => [job.name, job]));

/** @throws Error for a name that is not in the schedule */
export function jobNamed(name: string): Job {
  const job = byName.get(name);
  if (!job) throw new Error(`no job is called ${JSON.stringify(name)}: it is of another version of this service`);
  return job;
}
