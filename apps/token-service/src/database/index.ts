export { AuthorityLost } from './authority.js';
export type { Change } from './change.js';
export { DatabaseModule } from './database.module.js';
export {
  checkDatabase,
  constraintHit,
  Database,
  dataSourceOptions,
  isDatabaseUnavailable,
  LIST_SETTINGS,
} from './database.service.js';
export { columnsAs, deleteFrom, insertAllInto, insertInto, select, update } from './entity.js';
export { HISTORY, HISTORY_ID, INCARNATION, IS_CURRENT, LOG_FILE, STARTED } from './history.js';
export { type AfterCommit, type Statement, together } from './statement.js';
