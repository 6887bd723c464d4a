export {
  type DebianPrograms,
  debianPrograms,
  firstLine,
  hasApt,
  onPath,
  type UnpackedPrograms,
} from './debian-packages.js';
export { claimFolder, type FolderClaim, FolderInUse } from './folder-claim.js';
export { canListen, freePort, freePorts } from './free-port.js';
export { type Postgres, type PostgresOptions, startPostgres } from './postgres.js';
export { endProcess, processIdentity, signalTo, stillRuns } from './process-identity.js';
export { type Redis, type RedisOptions, startRedis } from './redis.js';
export { findRedis, type RedisSource } from './redis-binary.js';
export {
  type Child,
  type Exit,
  endLeftover,
  type LocalServer,
  noteProcess,
  PortTaken,
  startChild,
} from './server-process.js';
