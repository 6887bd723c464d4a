export { UsageModule } from './usage.module.js';
export { MANAGEMENT_ROUTE, UsageService, type Where } from './usage.service.js';
