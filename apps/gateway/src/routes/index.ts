export { parseRoutes, RoutesFileError, type RoutesSource, readRoutes } from './file.js';
export { OWN_PATHS } from './schema.js';
export { type Cors, Route, type RouteRequirement, RouteTable } from './table.js';
export { readTls, type UpstreamTls } from './tls.js';
export { type HealthCheckSettings, type UpstreamSettings, upstreamSettings } from './upstream.js';
export { type Reloaded, RoutesWatch, withSettings } from './watch.js';
