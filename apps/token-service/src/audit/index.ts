export { AuditModule } from './audit.module.js';
export { type AuditEntry, AuditService, type ChangeRow } from './audit.service.js';
export { AuditChain } from './chain.service.js';
