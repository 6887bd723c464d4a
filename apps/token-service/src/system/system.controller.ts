import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, Input, type InputOf, Prefer } from '../http/index.js';
import { RestoreService } from './restore.service.js';
import { SystemService } from './system.service.js';

/** The HTTP endpoint of the system's state. */
@Controller()
export class SystemController {
  constructor(
    private readonly system: SystemService,
    private readonly restores: RestoreService,
  ) {}

  @Call('getSystem')
  get() {
    return this.system.state();
  }

  @Call('settleRestore')
  settle(@Caller() actor: Actor, @Input() { body }: InputOf<'settleRestore'>, @Prefer() waitMs: number | undefined) {
    return this.restores.settle(actor, body, waitMs);
  }
}
