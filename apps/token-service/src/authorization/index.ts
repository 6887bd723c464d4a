export * from './actor.js';
export { AuthorizationModule } from './authorization.module.js';
export { readScopesFile, type ScopesFile, ScopesService } from './scopes.service.js';
