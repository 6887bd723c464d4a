export { AccountsModule } from './accounts.module.js';
export { PeopleService } from './people.service.js';
export { SessionsService } from './sessions.service.js';
