export { type Actor, type NamedActor, SYSTEM, type SystemActor, type TokenActor, type UserActor } from './actor.js';
export { AuthorizationModule } from './authorization.module.js';
export { type Membership, Rights, rightsOfPerson, rightsOfToken } from './rights.js';
export { ScopesService } from './scopes.service.js';
