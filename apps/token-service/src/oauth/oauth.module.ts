import { Module } from '@nestjs/common';
import { DatabaseModule } from '../database/database.module.js';
import { TokensModule } from '../tokens/tokens.module.js';
import { UsageModule } from '../usage/usage.module.js';
import { VerificationModule } from '../verification/verification.module.js';
import { OAuthController } from './oauth.controller.js';
import { OAuthService } from './oauth.service.js';

@Module({
  imports: [DatabaseModule, TokensModule, UsageModule, VerificationModule],
  controllers: [OAuthController],
  providers: [OAuthService],
})
export class OAuthModule {}
