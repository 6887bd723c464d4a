import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { map, type Observable } from 'rxjs';
import { HttpResponse } from './call.js';

/** Sets the status of a response: that of an `HttpResponse`; 202 for a change that is not effective yet; else 200. */
@Injectable()
export class ResponseInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (context.getType() !== 'http') return next.handle();
    const reply = context.switchToHttp().getResponse<FastifyReply>();
    return next.handle().pipe(
      map((value: unknown) => {
        if (value instanceof HttpResponse) {
          reply.status(value.status).headers(value.headers);
          return value.body;
        }
        const isPending =
          typeof value === 'object' && value !== null && 'effective' in value && value.effective === false;
        if (!reply.sent) reply.status(isPending ? 202 : 200);
        return value;
      }),
    );
  }
}
