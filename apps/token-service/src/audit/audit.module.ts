import { Module } from '@nestjs/common';
import { CONFIG, LOGGER } from '../config.js';
import { Database, DatabaseModule } from '../database/index.js';
import { AuditController } from './audit.controller.js';
import { AuditMaintenanceRpc } from './audit.rpc.js';
import { AuditService } from './audit.service.js';
import { AuditChain, auditChainOf } from './chain.service.js';
import { DenialsService } from './denials.service.js';

@Module({
  imports: [DatabaseModule],
  controllers: [AuditController, AuditMaintenanceRpc],
  providers: [
    AuditService,
    DenialsService,
    { provide: AuditChain, useFactory: auditChainOf, inject: [Database, CONFIG, LOGGER] },
  ],
  exports: [AuditChain, AuditService],
})
export class AuditModule {}
