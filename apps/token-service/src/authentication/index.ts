export { AuthenticationModule } from './authentication.module.js';
