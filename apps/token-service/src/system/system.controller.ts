import { Controller } from '@nestjs/common';
import { Call } from '../http/index.js';
import { SystemService } from './system.service.js';

/** The HTTP endpoint of the system's state. */
@Controller()
export class SystemController {
  constructor(private readonly system: SystemService) {}

  @Call('getSystem')
  get() {
    return this.system.state();
  }
}
