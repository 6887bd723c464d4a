import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuditModule } from '../audit/index.js';
import { AuthorizationModule } from '../authorization/index.js';
import { DatabaseModule } from '../database/index.js';
import { HttpModule } from '../http/index.js';
import { InvalidationModule } from '../invalidation/index.js';
import { LedgerModule } from '../ledger/index.js';
import { TokensModule } from '../tokens/index.js';
import { VerificationModule } from '../verification/index.js';
import { AttemptsService } from './attempts.service.js';
import { OidcService } from './oidc.service.js';
import { OwnPasswordsService } from './own-passwords.service.js';
import { PasswordEmailsRpc } from './password-emails.rpc.js';
import { PasswordEmailsService } from './password-emails.service.js';
import { PeopleController } from './people.controller.js';
import { PeopleService } from './people.service.js';
import { SecondFactorService } from './second-factor.service.js';
import { SessionsController } from './sessions.controller.js';
import { SessionsService } from './sessions.service.js';
import { SignInController } from './sign-in.controller.js';
import { UserEntity } from './user.entity.js';

@Module({
  imports: [
    TypeOrmModule.forFeature([UserEntity]),
    AuditModule,
    AuthorizationModule,
    DatabaseModule,
    HttpModule,
    InvalidationModule,
    LedgerModule,
    TokensModule,
    VerificationModule,
  ],
  controllers: [PeopleController, SessionsController, SignInController, PasswordEmailsRpc],
  providers: [
    AttemptsService,
    PasswordEmailsService,
    OidcService,
    OwnPasswordsService,
    PeopleService,
    SecondFactorService,
    SessionsService,
  ],
  exports: [SessionsService],
})
export class AccountsModule {}
