export { Console } from './console.js';
export { Delegated, type DelegatedResult, identityHeaders, readRequirement } from './delegated.js';
export { Management } from './management.js';
export { ProxyHandler } from './proxy-handler.js';
export { PublicServer } from './public-server.js';
