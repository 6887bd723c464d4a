export { loadRoutes, parseRoutes, RoutesFileError } from './file.js';
export { OWN_PATHS } from './schema.js';
export { type Cors, type Needs, Route, RouteTable } from './table.js';
