export { RestoreService } from './restore.service.js';
export { SystemModule } from './system.module.js';
