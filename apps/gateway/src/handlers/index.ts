export { Console } from './console.js';
export { Delegated, type DelegatedResult, identityHeaders, readRequirement } from './delegated.js';
export { ForwardAuth } from './forward-auth.js';
export { Management } from './management.js';
export { OpsServer } from './ops-server.js';
export { Peers } from './peers.js';
export { ProxyHandler } from './proxy-handler.js';
export { PublicServer } from './public-server.js';
