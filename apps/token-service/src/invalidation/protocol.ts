/** The protocol without Nest, PostgreSQL or Redis: what the simulation runs. */
export * from './confirm.js';
export * from './feed-keys.js';
export * from './leases.js';
export * from './log.js';
export * from './types.js';
