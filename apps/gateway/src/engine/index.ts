export { Backlog } from './backlog.js';
export type { BodySink, CallerRequest, Responder, ResponseFraming, TunnelSink } from './caller-request.js';
export { COPIED_BYTES_MAX } from './caller-request.js';
export type { TlsCredentials } from './handshakes.js';
export { HttpServer } from './server.js';
export { type RawSink, type ResponseSink, UpstreamConnection, type UpstreamFailure } from './upstream-connection.js';
export { type UpstreamPool, UpstreamPools } from './upstream-pool.js';
