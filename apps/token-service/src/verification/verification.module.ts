import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/index.js';
import { AuthorizationModule } from '../authorization/index.js';
import { DatabaseModule } from '../database/index.js';
import { HttpModule } from '../http/index.js';
import { UsageModule } from '../usage/index.js';
import { FactsService } from './facts.service.js';
import { LocksService } from './locks.service.js';
import { SecretHasher } from './secret-hasher.js';
import { VerificationService } from './verification.service.js';
import { VerifiersController } from './verifiers.controller.js';
import { VerifiersService } from './verifiers.service.js';

@Module({
  imports: [AuditModule, AuthorizationModule, DatabaseModule, HttpModule, UsageModule],
  controllers: [VerifiersController],
  providers: [FactsService, LocksService, SecretHasher, VerificationService, VerifiersService],
  exports: [FactsService, LocksService, SecretHasher, VerificationService],
})
export class VerificationModule {}
