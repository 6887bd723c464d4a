import { type DynamicModule, Module } from '@nestjs/common';
import { Delegated } from '../doors/index.js';
import { BearerGuard, BearerStrategy } from './bearer.guard.js';
import { ExtAuthzController } from './ext-authz.controller.js';
import { ForwardAuthController } from './forward-auth.controller.js';
import { Peers } from './peers.js';
import { WhoamiController } from './whoami.controller.js';

/** The gateway's own controllers. The data path does not pass through here. */
@Module({})
export class AppModule {
  static with(delegated: Delegated, peers: Peers): DynamicModule {
    return {
      module: AppModule,
      controllers: [WhoamiController, ForwardAuthController, ExtAuthzController],
      providers: [
        { provide: Delegated, useValue: delegated },
        { provide: Peers, useValue: peers },
        BearerStrategy,
        BearerGuard,
      ],
    };
  }
}
