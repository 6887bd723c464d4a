import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/index.js';
import { AuthorizationModule } from '../authorization/index.js';
import { DatabaseModule } from '../database/index.js';
import { InvalidationModule } from '../invalidation/index.js';
import { DeclarationsService } from './declarations.service.js';
import { MaintenanceRpc } from './maintenance.rpc.js';
import { MaintenanceService } from './maintenance.service.js';

@Module({
  imports: [AuditModule, AuthorizationModule, DatabaseModule, InvalidationModule],
  controllers: [MaintenanceRpc],
  providers: [DeclarationsService, MaintenanceService],
  exports: [DeclarationsService],
})
export class MaintenanceModule {}
