import { status } from '@grpc/grpc-js';
import type { Logger } from '@latchkey/runtime';
import { Catch, Inject } from '@nestjs/common';
import { RpcException, type RpcException as RpcExceptionType } from '@nestjs/microservices';
import { type Observable, throwError } from 'rxjs';
import { LOGGER } from '../config.js';
import { isDatabaseUnavailable } from '../database/index.js';
import { ApiError } from '../http/index.js';

const CODES: Partial<Record<ApiError['code'], status>> = {
  invalid_request: status.INVALID_ARGUMENT,
  unavailable: status.UNAVAILABLE,
  rate_limited: status.RESOURCE_EXHAUSTED,
  forbidden: status.PERMISSION_DENIED,
  insufficient_scope: status.PERMISSION_DENIED,
  not_found: status.NOT_FOUND,
  conflict: status.FAILED_PRECONDITION,
};

/** Maps every error of the gRPC API to a status; what is not meant for the caller is only logged. */
@Catch()
export class RpcErrorFilter {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  catch(error: unknown): Observable<never> {
    return throwError(() => this.#statusOf(error));
  }

  #statusOf(error: unknown): { code: status; message: string } {
    if (error instanceof RpcException)
      return (error as RpcExceptionType).getError() as { code: status; message: string };
    if (error instanceof ApiError) return { code: CODES[error.code] ?? status.UNKNOWN, message: error.detail };
    if (isDatabaseUnavailable(error))
      return { code: status.UNAVAILABLE, message: 'the database is unavailable; try again' };
    this.logger.error({ err: error }, 'a gRPC call failed');
    return { code: status.INTERNAL, message: 'internal error' };
  }
}
