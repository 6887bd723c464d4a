export { deliverAudit } from './deliver-audit.job.js';
export { sealAudit } from './seal-audit.job.js';
