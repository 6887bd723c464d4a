export { Backlog } from './backlog.js';
export type { BodySink, CallerRequest, Responder, ResponseFraming, TunnelSink } from './caller-request.js';
export { COPIED_BYTES_MAX } from './caller-request.js';
export { HttpServer } from './server.js';
export { type RawSink, type ResponseSink, UpstreamConnection, type UpstreamFailure } from './upstream-connection.js';
export { UpstreamGroup } from './upstream-group.js';
export type { UpstreamHealth } from './upstream-health.js';
export type { UpstreamPool } from './upstream-pool.js';
export { UpstreamPools } from './upstream-pools.js';
