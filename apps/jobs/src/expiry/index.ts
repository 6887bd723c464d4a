export { continueExposures } from './continue-exposures.job.js';
export { endOverlaps } from './end-overlaps.job.js';
export { expireDue } from './expire-due.job.js';
export { prune } from './prune.job.js';
export { revokeIdle } from './revoke-idle.job.js';
