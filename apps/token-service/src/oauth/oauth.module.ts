import { Module } from '@nestjs/common';
import { DatabaseModule } from '../database/index.js';
import { TokensModule } from '../tokens/index.js';
import { UsageModule } from '../usage/index.js';
import { VerificationModule } from '../verification/index.js';
import { OAuthController } from './oauth.controller.js';
import { OAuthService } from './oauth.service.js';

@Module({
  imports: [DatabaseModule, TokensModule, UsageModule, VerificationModule],
  controllers: [OAuthController],
  providers: [OAuthService],
})
export class OAuthModule {}
