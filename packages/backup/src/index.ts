export { type BackupOptions, type BackupResult, backup } from './backup.js';
export { LEFT_OUT } from './catalog.js';
export { backupProgram, type Place, restoreProgram, runProgram, type Source, type Target } from './cli.js';
export { type Contents, readContents } from './content.js';
export { BackupError } from './errors.js';
export type { Lock, Unlock } from './keys.js';
export type { Digests, Manifest } from './manifest.js';
export { migrateBy } from './migrate-by.js';
export { type Restored, type RestoreOptions, type RestoreTarget, restore } from './restore.js';
