/** The ledger without Nest or PostgreSQL: what the simulation runs. */
export * from './comparison.js';
export * from './entry.js';
export * from './files.js';
export * from './folder.js';
export * from './follower.js';
export { ledgerKey } from './format.js';
export * from './standing.js';
export * from './store.js';
export { type Asked, type LedgerComparison, type Requests, ThreadEnded } from './thread.js';
export * from './vouching.js';
