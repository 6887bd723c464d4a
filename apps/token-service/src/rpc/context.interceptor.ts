import type { Metadata } from '@grpc/grpc-js';
import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import type { Observable } from 'rxjs';
import { requestContext } from '../http/index.js';
import { callOf } from './caller.js';

/** Runs a gRPC call in the context that audit events and logs read, as HTTP requests do. */
@Injectable()
export class RpcContextInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (context.getType() !== 'rpc') return next.handle();
    const call = callOf(context.switchToRpc().getContext<Metadata>());
    return call ? requestContext.run(call.context, () => next.handle()) : next.handle();
  }
}
