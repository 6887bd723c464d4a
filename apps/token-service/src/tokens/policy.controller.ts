import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, Input, type InputOf } from '../http/index.js';
import { PolicyService } from './policy.service.js';

/** HTTP endpoints of the token policy. */
@Controller()
export class PolicyController {
  constructor(private readonly policy: PolicyService) {}

  @Call('getPolicy')
  get() {
    return this.policy.read();
  }

  @Call('putPolicy')
  put(@Caller() actor: Actor, @Input() { body }: InputOf<'putPolicy'>) {
    return this.policy.put(actor, body);
  }
}
