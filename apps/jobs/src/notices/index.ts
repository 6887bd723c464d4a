export { deliverNotices } from './deliver-notices.job.js';
export { deliverPasswordEmails } from './deliver-password-emails.job.js';
export { followAudit } from './follow-audit.job.js';
export { noticeExpiring } from './notice-expiring.job.js';
export { raiseNotices } from './notices.service.js';
export { reportUses } from './report-uses.job.js';
export { warnIdle } from './warn-idle.job.js';
