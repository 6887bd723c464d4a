export * from './actor.js';
export { AuthorizationModule } from './authorization.module.js';
export { ScopesService } from './scopes.service.js';
