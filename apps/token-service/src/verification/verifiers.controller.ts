import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, Input, type InputOf } from '../http/index.js';
import { VerifiersService } from './verifiers.service.js';

/** The HTTP endpoints of verifiers. */
@Controller()
export class VerifiersController {
  constructor(private readonly verifiers: VerifiersService) {}

  @Call('listVerifiers')
  list() {
    return this.verifiers.list();
  }

  @Call('endVerifier')
  end(@Caller() actor: Actor, @Input() { params }: InputOf<'endVerifier'>) {
    return this.verifiers.end(actor, params.id);
  }
}
