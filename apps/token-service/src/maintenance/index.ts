export { DeclarationsService } from './declarations.service.js';
export { MaintenanceModule } from './maintenance.module.js';
