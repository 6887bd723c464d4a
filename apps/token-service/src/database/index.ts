export { DatabaseModule } from './database.module.js';
export {
  constraintHit,
  Database,
  dataSourceOptions,
  inOrder,
  isDatabaseAway,
  Last,
  LIST_SETTINGS,
  rows,
  sqlState,
  type Tx,
  together,
  writeNow,
} from './database.service.js';
export type { AfterCommit, Statement } from './statement.js';
