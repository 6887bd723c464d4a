export { canary } from './canary.job.js';
