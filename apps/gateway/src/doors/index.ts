export { Console } from './console.js';
export { type Answer, Delegated, identityHeaders, type Question, readConditions } from './delegated.js';
export { Management } from './management.js';
export { PublicDoor } from './public-door.js';
export { RouteDoor } from './route-door.js';
export { Upstreams } from './upstreams.js';
export { WebSocketDoor } from './websocket-door.js';
