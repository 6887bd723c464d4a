export { AuthenticationModule } from './authentication.module.js';
export { VerifyFront } from './verify.front.js';
