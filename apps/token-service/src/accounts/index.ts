export { AccountsModule } from './accounts.module.js';
export { PeopleService } from './people.service.js';
export { codeDigest, newResetCode, RESET_SECONDS } from './reset-codes.js';
export { SessionsService } from './sessions.service.js';
