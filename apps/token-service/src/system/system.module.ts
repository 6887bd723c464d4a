import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/index.js';
import { DatabaseModule } from '../database/index.js';
import { InvalidationModule } from '../invalidation/index.js';
import { LedgerModule } from '../ledger/index.js';
import { MaintenanceModule } from '../maintenance/index.js';
import { TokensModule } from '../tokens/index.js';
import { VerificationModule } from '../verification/index.js';
import { ReplayService } from './replay.service.js';
import { RestoreService } from './restore.service.js';
import { SystemController } from './system.controller.js';
import { SystemService } from './system.service.js';

@Module({
  imports: [
    AuditModule,
    DatabaseModule,
    InvalidationModule,
    LedgerModule,
    MaintenanceModule,
    TokensModule,
    VerificationModule,
  ],
  controllers: [SystemController],
  providers: [ReplayService, RestoreService, SystemService],
  exports: [RestoreService],
})
export class SystemModule {}
