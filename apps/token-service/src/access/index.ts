export { type Actor, SYSTEM, type SystemActor, type TokenActor, type UserActor } from './actor.js';
export { type Membership, Rights, rightsOfPerson, rightsOfToken } from './rights.js';
export { ScopesService } from './scopes.service.js';
