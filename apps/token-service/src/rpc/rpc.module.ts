import { Module } from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import { RpcContextInterceptor } from './context.interceptor.js';
import { RpcErrorFilter } from './rpc.filter.js';

@Module({
  providers: [RpcErrorFilter, { provide: APP_INTERCEPTOR, useClass: RpcContextInterceptor }],
  exports: [RpcErrorFilter],
})
export class RpcModule {}
