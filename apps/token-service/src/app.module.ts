import type { Clock, Logger } from '@latchkey/runtime';
import { type DynamicModule, Module } from '@nestjs/common';
import { APP_FILTER, APP_GUARD, APP_INTERCEPTOR } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DataSource } from 'typeorm';
import { AuthenticationGuard } from './access/authentication.guard.js';
import { BearerStrategy } from './access/bearer.strategy.js';
import { DeclarationsService } from './access/declarations.service.js';
import { LocksService } from './access/locks.service.js';
import { ScopesService } from './access/scopes.service.js';
import { AuditController } from './audit/audit.controller.js';
import { AuditMaintenanceRpc } from './audit/audit.rpc.js';
import { AuditService } from './audit/audit.service.js';
import { AuditChain, auditChainOf } from './audit/chain.service.js';
import { DenialsService } from './audit/denials.service.js';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from './config.js';
import { Database, dataSourceOptions } from './database/database.service.js';
import { AnswerInterceptor } from './http/answer.interceptor.js';
import { DocsController, ProblemFilter } from './http/index.js';
import { RatesService } from './http/rates.service.js';
import { HoldersService } from './invalidation/holders.service.js';
import { InvalidationRpc } from './invalidation/invalidation.rpc.js';
import { InvalidationService } from './invalidation/invalidation.service.js';
import { ReceiptsService } from './invalidation/receipts.service.js';
import { VerifiersController } from './invalidation/verifiers.controller.js';
import { VerifiersService } from './invalidation/verifiers.service.js';
import { WatchRpc } from './invalidation/watch.rpc.js';
import { MaintenanceRpc } from './maintenance/maintenance.rpc.js';
import { MaintenanceService } from './maintenance/maintenance.service.js';
import { McpController } from './mcp/mcp.controller.js';
import { McpService } from './mcp/mcp.service.js';
import { NoticesController } from './notices/notices.controller.js';
import { NoticesService } from './notices/notices.service.js';
import { OAuthController } from './oauth/oauth.controller.js';
import { OAuthService } from './oauth/oauth.service.js';
import { PeopleController } from './people/people.controller.js';
import { PeopleService } from './people/people.service.js';
import { UserEntity } from './people/user.entity.js';
import { MemberEntity, ProjectEntity } from './projects/project.entity.js';
import { ProjectsController } from './projects/projects.controller.js';
import { ProjectsService } from './projects/projects.service.js';
import { ErrorFilter, RpcCallerGuard, RpcContextInterceptor, RpcErrorFilter } from './rpc/index.js';
import { AttemptsService } from './sessions/attempts.service.js';
import { LettersRpc } from './sessions/letters.rpc.js';
import { LettersService } from './sessions/letters.service.js';
import { OidcService } from './sessions/oidc.service.js';
import { OwnPasswordsService } from './sessions/own-passwords.service.js';
import { SecondFactorService } from './sessions/second-factor.service.js';
import { SessionsController } from './sessions/sessions.controller.js';
import { SessionsService } from './sessions/sessions.service.js';
import { SignInController } from './sessions/sign-in.controller.js';
import { SystemController } from './system/system.controller.js';
import { SystemService } from './system/system.service.js';
import { AftermathService } from './tokens/aftermath.service.js';
import { BatchesService } from './tokens/batches.service.js';
import { ClosuresService } from './tokens/closures.service.js';
import { EverythingService } from './tokens/everything.service.js';
import { ExpiryService } from './tokens/expiry.service.js';
import { ExposuresService } from './tokens/exposures.service.js';
import { FactsService } from './tokens/facts.service.js';
import { IdleService } from './tokens/idle.service.js';
import { ImportService } from './tokens/import.service.js';
import { PolicyController } from './tokens/policy.controller.js';
import { PolicyService } from './tokens/policy.service.js';
import { ReceiptsController } from './tokens/receipts.controller.js';
import { RecordsService } from './tokens/records.service.js';
import { RevocationsService } from './tokens/revocations.service.js';
import { RotationsService } from './tokens/rotations.service.js';
import { StoreService } from './tokens/store.service.js';
import { TokenEntity } from './tokens/token.entity.js';
import { TokensController } from './tokens/tokens.controller.js';
import { TokensMaintenanceRpc, TokensRpc } from './tokens/tokens.rpc.js';
import { TokensService } from './tokens/tokens.service.js';
import { VerificationService } from './tokens/verification.service.js';
import { ReportsService } from './usage/reports.service.js';
import { UsageController } from './usage/usage.controller.js';
import { UsageService } from './usage/usage.service.js';

@Module({})
class AppModule {}

/** The parts of the token-service, put together. */
export function appModule(config: TokenServiceConfig, logger: Logger, clock: Clock): DynamicModule {
  return {
    module: AppModule,
    imports: [
      TypeOrmModule.forRoot({
        ...dataSourceOptions(config),
        entities: [UserEntity, ProjectEntity, MemberEntity, TokenEntity],
        retryAttempts: 10,
        retryDelay: 500,
      }),
    ],
    controllers: [
      AuditController,
      AuditMaintenanceRpc,
      InvalidationRpc,
      MaintenanceRpc,
      DocsController,
      NoticesController,
      McpController,
      OAuthController,
      PeopleController,
      PolicyController,
      ProjectsController,
      ReceiptsController,
      SessionsController,
      SignInController,
      SystemController,
      TokensController,
      UsageController,
      VerifiersController,
      TokensRpc,
      WatchRpc,
      TokensMaintenanceRpc,
      LettersRpc,
    ],
    providers: [
      { provide: CONFIG, useValue: config },
      { provide: LOGGER, useValue: logger },
      { provide: CLOCK, useValue: clock },
      // Bound for HTTP and gRPC alike, each to its own part: a handler that says nothing of who may call is closed.
      ProblemFilter,
      RpcErrorFilter,
      { provide: APP_FILTER, useClass: ErrorFilter },
      { provide: APP_GUARD, useClass: AuthenticationGuard },
      { provide: APP_GUARD, useClass: RpcCallerGuard },
      { provide: APP_INTERCEPTOR, useClass: AnswerInterceptor },
      { provide: APP_INTERCEPTOR, useClass: RpcContextInterceptor },
      AftermathService,
      AttemptsService,
      AuditService,
      {
        provide: AuditChain,
        useFactory: (db: DataSource) => auditChainOf(db, config, logger),
        inject: [DataSource],
      },
      BearerStrategy,
      ClosuresService,
      Database,
      DeclarationsService,
      DenialsService,
      BatchesService,
      EverythingService,
      ExposuresService,
      FactsService,
      ExpiryService,
      HoldersService,
      IdleService,
      ImportService,
      InvalidationService,
      LettersService,
      LocksService,
      MaintenanceService,
      OidcService,
      OwnPasswordsService,
      NoticesService,
      McpService,
      OAuthService,
      PeopleService,
      PolicyService,
      ProjectsService,
      RatesService,
      ReceiptsService,
      RecordsService,
      RevocationsService,
      RotationsService,
      StoreService,
      SystemService,
      ReportsService,
      ScopesService,
      SecondFactorService,
      SessionsService,
      TokensService,
      UsageService,
      VerificationService,
      VerifiersService,
    ],
  };
}
