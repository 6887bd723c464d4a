export { drainUsage } from './drain-usage.job.js';
export { pruneUsage } from './prune-usage.job.js';
