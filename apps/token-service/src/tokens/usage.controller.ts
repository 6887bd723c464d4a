import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, Input, type InputOf } from '../http/index.js';
import { ReportsService } from './usage-reports.service.js';

/** HTTP endpoints of usage. */
@Controller()
export class UsageController {
  constructor(private readonly reports: ReportsService) {}

  @Call('tokenUsage')
  usage(@Caller() actor: Actor, @Input() { params, query }: InputOf<'tokenUsage'>) {
    return this.reports.usage(actor, params.id, query);
  }
}
