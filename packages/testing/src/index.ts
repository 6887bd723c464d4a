export { freePorts } from '@latchkey/local-stack';
export { AUTHORIZATION_CASES, type AuthorizationCase, type AuthorizationRead } from './authorization-cases.js';
export { selfSigned } from './certificate.js';
export {
  asService,
  type CallOptions,
  type Cluster,
  type ClusterDatabase,
  type ClusterOptions,
  type Member,
  startCluster,
  tcpBalancer,
} from './cluster.js';
export { type TestCredentials, testCredentials } from './credentials.js';
export { type TestDatabase, type TestDatabaseOptions, testDatabase } from './database.js';
export { type FaultyLink, faultyLink, type LinkTarget } from './faulty-link.js';
export { type OwnServer, ownServer, type StandBy } from './own-server.js';
export { type TestRedis, testRedis } from './redis.js';
export { type RunningService, type SpawnServiceOptions, spawnService } from './service.js';
export { type SharedServers, sharedServers } from './shared-servers.js';
export { waitFor } from './wait-for.js';
