import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { AuthorizationModule } from '../authorization/authorization.module.js';
import { DatabaseModule } from '../database/database.module.js';
import { InvalidationModule } from '../invalidation/invalidation.module.js';
import { DeclarationsService } from './declarations.service.js';
import { MaintenanceRpc } from './maintenance.rpc.js';
import { MaintenanceService } from './maintenance.service.js';

@Module({
  imports: [AuditModule, AuthorizationModule, DatabaseModule, InvalidationModule],
  controllers: [MaintenanceRpc],
  providers: [DeclarationsService, MaintenanceService],
})
export class MaintenanceModule {}
