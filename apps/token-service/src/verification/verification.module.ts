import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/index.js';
import { AuthorizationModule } from '../authorization/index.js';
import { DatabaseModule } from '../database/index.js';
import { HttpModule } from '../http/index.js';
import { InvalidationModule } from '../invalidation/index.js';
import { UsageModule } from '../usage/index.js';
import { LocksService } from './locks.service.js';
import { OwnVerifierService } from './own-verifier.service.js';
import { PeppersService } from './peppers.service.js';
import { RehashService } from './rehash.service.js';
import { SecretHasher } from './secret-hasher.js';
import { SnapshotService } from './snapshot.service.js';
import { VerificationService } from './verification.service.js';
import { VerifiersController } from './verifiers.controller.js';
import { VerifiersService } from './verifiers.service.js';

@Module({
  imports: [AuditModule, AuthorizationModule, DatabaseModule, HttpModule, InvalidationModule, UsageModule],
  controllers: [VerifiersController],
  providers: [
    SnapshotService,
    LocksService,
    OwnVerifierService,
    PeppersService,
    RehashService,
    SecretHasher,
    VerificationService,
    VerifiersService,
  ],
  exports: [SnapshotService, LocksService, OwnVerifierService, PeppersService, SecretHasher, VerificationService],
})
export class VerificationModule {}
