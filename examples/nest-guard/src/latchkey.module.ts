import { type DynamicModule, Module } from '@nestjs/common';
import { APP_FILTER, APP_GUARD } from '@nestjs/core';
import { ApiErrorFilter } from './api-error.js';
import { BearerGuard } from './bearer.guard.js';
import { BearerStrategy } from './bearer.strategy.js';
import { LATCHKEY_OPTIONS, Latchkey, type LatchkeyOptions } from './latchkey.js';

/** Guards every route of the application; `@Public()` opens one, `@Requires()` declares what another needs. */
@Module({})
export class LatchkeyModule {
  static register(options: LatchkeyOptions): DynamicModule {
    return {
      module: LatchkeyModule,
      providers: [
        { provide: LATCHKEY_OPTIONS, useValue: options },
        Latchkey,
        BearerStrategy,
        { provide: APP_GUARD, useClass: BearerGuard },
        { provide: APP_FILTER, useClass: ApiErrorFilter },
      ],
    };
  }
}
