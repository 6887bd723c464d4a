import { type DynamicModule, Module } from '@nestjs/common';
import { Checks } from '../check/index.js';
import { Delegated, Peers } from '../handlers/index.js';
import { BearerStrategy } from './bearer.strategy.js';
import { ExtAuthzController } from './ext-authz.controller.js';
import { WhoamiController, WhoamiGuard } from './whoami.controller.js';

/** The gateway's own controllers. The proxy does not use Nest. */
@Module({})
export class AppModule {
  static with(checks: Checks, delegated: Delegated, peers: Peers): DynamicModule {
    return {
      module: AppModule,
      controllers: [WhoamiController, ExtAuthzController],
      providers: [
        { provide: Checks, useValue: checks },
        { provide: Delegated, useValue: delegated },
        { provide: Peers, useValue: peers },
        BearerStrategy,
        WhoamiGuard,
      ],
    };
  }
}
