export { createLog, LOG_LEVELS, type Log, type LogLevel } from './log.js';
export { type DemoOptions, type DemoUpstream, startDemoUpstream } from './server.js';
export { LIMITS } from './store.js';
