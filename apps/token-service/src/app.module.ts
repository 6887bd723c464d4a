import type { Clock, Logger } from '@latchkey/runtime';
import { type DynamicModule, Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AccountsModule } from './accounts/index.js';
import { AuditModule } from './audit/index.js';
import { AuthenticationModule } from './authentication/index.js';
import { AuthorizationModule } from './authorization/index.js';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from './config.js';
import { DatabaseModule, dataSourceOptions } from './database/index.js';
import { HttpModule } from './http/index.js';
import { InvalidationModule } from './invalidation/index.js';
import { LedgerModule } from './ledger/index.js';
import { MaintenanceModule } from './maintenance/index.js';
import { McpModule } from './mcp/index.js';
import { NoticesModule } from './notices/index.js';
import { OAuthModule } from './oauth/index.js';
import { ProjectsModule } from './projects/index.js';
import { RedisModule } from './redis/index.js';
import { RpcModule } from './rpc/index.js';
import { SystemModule } from './system/index.js';
import { TokensModule } from './tokens/index.js';
import { UsageModule } from './usage/index.js';
import { VerificationModule } from './verification/index.js';

@Module({})
class AppModule {}

/** Provides the configuration, the logger and the clock to every module. */
@Module({})
class SettingsModule {}

/** The modules of the token-service; each imports only modules below it in this list. */
export function appModule(config: TokenServiceConfig, logger: Logger, clock: Clock): DynamicModule {
  return {
    module: AppModule,
    imports: [
      AuthenticationModule,
      McpModule,
      OAuthModule,
      AccountsModule,
      SystemModule,
      TokensModule,
      ProjectsModule,
      MaintenanceModule,
      VerificationModule,
      InvalidationModule,
      LedgerModule,
      AuditModule,
      UsageModule,
      NoticesModule,
      RpcModule,
      HttpModule,
      AuthorizationModule,
      DatabaseModule,
      RedisModule,
      {
        module: SettingsModule,
        global: true,
        providers: [
          { provide: CONFIG, useValue: config },
          { provide: LOGGER, useValue: logger },
          { provide: CLOCK, useValue: clock },
        ],
        exports: [CONFIG, LOGGER, CLOCK],
      },
      TypeOrmModule.forRoot({
        ...dataSourceOptions(config),
        autoLoadEntities: true,
        retryAttempts: 10,
        retryDelay: 500,
      }),
    ],
  };
}
