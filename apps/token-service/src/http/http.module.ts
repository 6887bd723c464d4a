import { Module } from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import { RedisModule } from '../redis/index.js';
import { DocsController } from './docs.controller.js';
import { RatesService } from './rates.service.js';
import { ResponseInterceptor } from './response.interceptor.js';

@Module({
  imports: [RedisModule],
  controllers: [DocsController],
  providers: [RatesService, { provide: APP_INTERCEPTOR, useClass: ResponseInterceptor }],
  exports: [RatesService],
})
export class HttpModule {}
