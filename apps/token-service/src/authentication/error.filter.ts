import { type ArgumentsHost, Catch, type ExceptionFilter } from '@nestjs/common';
import type { Observable } from 'rxjs';
import { RpcErrorFilter } from '../rpc/index.js';
import { ProblemFilter } from './problem.filter.js';

/** Every error of every endpoint: a status over gRPC, a problem over HTTP. Nest calls one filter for both. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  constructor(
    private readonly rpc: RpcErrorFilter,
    private readonly problems: ProblemFilter,
  ) {}

  catch(error: unknown, host: ArgumentsHost): Observable<never> | undefined {
    if (host.getType() === 'rpc') return this.rpc.catch(error);
    this.problems.catch(error, host);
    return undefined;
  }
}
