import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { AuthorizationModule } from '../authorization/authorization.module.js';
import { DatabaseModule } from '../database/database.module.js';
import { HttpModule } from '../http/http.module.js';
import { InvalidationModule } from '../invalidation/invalidation.module.js';
import { TokensModule } from '../tokens/tokens.module.js';
import { VerificationModule } from '../verification/verification.module.js';
import { AttemptsService } from './attempts.service.js';
import { LettersRpc } from './letters.rpc.js';
import { LettersService } from './letters.service.js';
import { OidcService } from './oidc.service.js';
import { OwnPasswordsService } from './own-passwords.service.js';
import { PeopleController } from './people.controller.js';
import { PeopleService } from './people.service.js';
import { SecondFactorService } from './second-factor.service.js';
import { SessionsController } from './sessions.controller.js';
import { SessionsService } from './sessions.service.js';
import { SignInController } from './sign-in.controller.js';

@Module({
  imports: [
    AuditModule,
    AuthorizationModule,
    DatabaseModule,
    HttpModule,
    InvalidationModule,
    TokensModule,
    VerificationModule,
  ],
  controllers: [PeopleController, SessionsController, SignInController, LettersRpc],
  providers: [
    AttemptsService,
    LettersService,
    OidcService,
    OwnPasswordsService,
    PeopleService,
    SecondFactorService,
    SessionsService,
  ],
  exports: [SessionsService],
})
export class AccountsModule {}
