export { claimFolder, type FolderClaim, FolderInUse } from './folder-claim.js';
export { type Postgres, type PostgresOptions, startPostgres } from './postgres.js';
export { processIdentity, signalTo, stillRuns } from './process-identity.js';
export { type Redis, type RedisOptions, startRedis } from './redis.js';
export { findRedis, type RedisSource } from './redis-binary.js';
export { type Exit, freePort, type LocalServer, listens, PortTaken } from './server-process.js';
