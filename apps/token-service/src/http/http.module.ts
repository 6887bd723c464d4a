import { Module } from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import { RedisModule } from '../redis/index.js';
import { AnswerInterceptor } from './answer.interceptor.js';
import { DocsController } from './docs.controller.js';
import { RatesService } from './rates.service.js';

@Module({
  imports: [RedisModule],
  controllers: [DocsController],
  providers: [RatesService, { provide: APP_INTERCEPTOR, useClass: AnswerInterceptor }],
  exports: [RatesService],
})
export class HttpModule {}
