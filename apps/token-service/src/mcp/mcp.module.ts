import { Module } from '@nestjs/common';
import { HttpModule } from '../http/index.js';
import { TokensModule } from '../tokens/index.js';
import { VerificationModule } from '../verification/index.js';
import { McpController } from './mcp.controller.js';
import { McpService } from './mcp.service.js';

@Module({
  imports: [HttpModule, TokensModule, VerificationModule],
  controllers: [McpController],
  providers: [McpService],
})
export class McpModule {}
