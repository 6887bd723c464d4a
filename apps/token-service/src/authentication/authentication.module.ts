import { Module } from '@nestjs/common';
import { APP_FILTER, APP_GUARD } from '@nestjs/core';
import { AccountsModule } from '../accounts/index.js';
import { DatabaseModule } from '../database/index.js';
import { RpcModule } from '../rpc/index.js';
import { UsageModule } from '../usage/index.js';
import { VerificationModule } from '../verification/index.js';
import { AuthenticationGuard } from './authentication.guard.js';
import { BearerStrategy } from './bearer.strategy.js';
import { ErrorFilter } from './error.filter.js';
import { ProblemFilter } from './problem.filter.js';
import { RpcCallerGuard } from './rpc-caller.guard.js';
import { VerifyFront } from './verify.front.js';

@Module({
  imports: [AccountsModule, DatabaseModule, RpcModule, UsageModule, VerificationModule],
  providers: [
    ProblemFilter,
    BearerStrategy,
    { provide: APP_GUARD, useClass: AuthenticationGuard },
    RpcCallerGuard,
    VerifyFront,
    { provide: APP_GUARD, useExisting: RpcCallerGuard },
    { provide: APP_FILTER, useClass: ErrorFilter },
  ],
})
export class AuthenticationModule {}
