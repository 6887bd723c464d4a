import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, Input, type InputOf } from '../http/index.js';
import { NoticesService } from './notices.service.js';

/** The HTTP endpoints of a person's choice of notices. */
@Controller()
export class NoticesController {
  constructor(private readonly notices: NoticesService) {}

  @Call('getNoticeChoices')
  get(@Caller() actor: Actor) {
    return this.notices.choicesOf(actor);
  }

  @Call('putNoticeChoices')
  put(@Caller() actor: Actor, @Input() { body }: InputOf<'putNoticeChoices'>) {
    return this.notices.choose(actor, body);
  }
}
