import type { Clock, Logger } from '@latchkey/runtime';
import { type DynamicModule, Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AccountsModule } from './accounts/accounts.module.js';
import { UserEntity } from './accounts/user.entity.js';
import { AuditModule } from './audit/audit.module.js';
import { AuthenticationModule } from './authentication/authentication.module.js';
import { AuthorizationModule } from './authorization/authorization.module.js';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from './config.js';
import { DatabaseModule } from './database/database.module.js';
import { dataSourceOptions } from './database/database.service.js';
import { HttpModule } from './http/http.module.js';
import { InvalidationModule } from './invalidation/invalidation.module.js';
import { MaintenanceModule } from './maintenance/maintenance.module.js';
import { McpModule } from './mcp/mcp.module.js';
import { NoticesModule } from './notices/notices.module.js';
import { OAuthModule } from './oauth/oauth.module.js';
import { MemberEntity, ProjectEntity } from './projects/project.entity.js';
import { ProjectsModule } from './projects/projects.module.js';
import { RpcModule } from './rpc/rpc.module.js';
import { SystemModule } from './system/system.module.js';
import { TokenEntity } from './tokens/token.entity.js';
import { TokensModule } from './tokens/tokens.module.js';
import { UsageModule } from './usage/usage.module.js';
import { VerificationModule } from './verification/verification.module.js';

@Module({})
class AppModule {}

/** What every module is given: how it is configured, where it logs, what time it is. */
@Module({})
class SettingsModule {}

/** The modules of the token-service, each importing only such as stand below it in this list. */
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
      AuditModule,
      UsageModule,
      NoticesModule,
      RpcModule,
      HttpModule,
      AuthorizationModule,
      DatabaseModule,
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
        entities: [UserEntity, ProjectEntity, MemberEntity, TokenEntity],
        retryAttempts: 10,
        retryDelay: 500,
      }),
    ],
  };
}
