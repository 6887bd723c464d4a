import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuditModule } from '../audit/index.js';
import { AuthorizationModule } from '../authorization/index.js';
import { DatabaseModule } from '../database/index.js';
import { HttpModule } from '../http/index.js';
import { InvalidationModule } from '../invalidation/index.js';
import { VerificationModule } from '../verification/index.js';
import { AlsoChangedService } from './also-changed.service.js';
import { BatchesService } from './batches.service.js';
import { ClosuresService } from './closures.service.js';
import { ExpiryService } from './expiry.service.js';
import { ExposuresService } from './exposures.service.js';
import { IdleService } from './idle.service.js';
import { ImportService } from './import.service.js';
import { PolicyController } from './policy.controller.js';
import { PolicyService } from './policy.service.js';
import { ReceiptsController } from './receipts.controller.js';
import { RestoredTokensService } from './restored-tokens.service.js';
import { RevocationsService } from './revocations.service.js';
import { RevokeAllService } from './revoke-all.service.js';
import { RotationsService } from './rotations.service.js';
import { TokenEntity } from './token.entity.js';
import { TokenReader } from './token.reader.js';
import { TokenRepository } from './token.repository.js';
import { TokensController } from './tokens.controller.js';
import { TokensMaintenanceRpc, TokensRpc } from './tokens.rpc.js';
import { TokensService } from './tokens.service.js';
import { UsageController } from './usage.controller.js';
import { ReportsService } from './usage-reports.service.js';

@Module({
  imports: [
    TypeOrmModule.forFeature([TokenEntity]),
    AuditModule,
    AuthorizationModule,
    DatabaseModule,
    HttpModule,
    InvalidationModule,
    VerificationModule,
  ],
  controllers: [
    PolicyController,
    ReceiptsController,
    TokensController,
    UsageController,
    TokensRpc,
    TokensMaintenanceRpc,
  ],
  providers: [
    AlsoChangedService,
    ClosuresService,
    BatchesService,
    RestoredTokensService,
    RevokeAllService,
    ExposuresService,
    ExpiryService,
    IdleService,
    ImportService,
    PolicyService,
    TokenReader,
    RevocationsService,
    RotationsService,
    TokenRepository,
    ReportsService,
    TokensService,
  ],
  exports: [RestoredTokensService, RevokeAllService, TokenReader, ReportsService, RevocationsService, TokensService],
})
export class TokensModule {}
