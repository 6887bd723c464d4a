import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { AuthorizationModule } from '../authorization/authorization.module.js';
import { DatabaseModule } from '../database/database.module.js';
import { HttpModule } from '../http/http.module.js';
import { UsageModule } from '../usage/usage.module.js';
import { FactsService } from './facts.service.js';
import { LocksService } from './locks.service.js';
import { VerificationService } from './verification.service.js';
import { VerifiersController } from './verifiers.controller.js';
import { VerifiersService } from './verifiers.service.js';

@Module({
  imports: [AuditModule, AuthorizationModule, DatabaseModule, HttpModule, UsageModule],
  controllers: [VerifiersController],
  providers: [FactsService, LocksService, VerificationService, VerifiersService],
  exports: [FactsService, LocksService, VerificationService],
})
export class VerificationModule {}
