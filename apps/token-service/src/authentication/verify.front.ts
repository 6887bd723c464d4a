import type { ServerUnaryCall } from '@grpc/grpc-js';
import type { VerifyRequest, VerifyResponse } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import { VerificationService } from '../verification/index.js';
import { RpcCallerGuard } from './rpc-caller.guard.js';

/** As `@CallableBy` of `Verify` says. */
const CALLERS = ['gateway', 'token'] as const;

/** Responds to `Verify` ahead of Nest's pipeline, as far as the call can be decided from memory. */
@Injectable()
export class VerifyFront {
  constructor(
    private readonly callers: RpcCallerGuard,
    private readonly verification: VerificationService,
  ) {}

  /** Undefined: the call takes the way of all others. Only then can it be refused. */
  respond(call: ServerUnaryCall<VerifyRequest, VerifyResponse>): VerifyResponse | undefined {
    const countCaller = this.callers.recall(call.metadata, call.getPeer(), CALLERS);
    if (!countCaller) return undefined;
    const response = this.verification.recallForRpc(call.request);
    if (response) countCaller();
    return response;
  }
}
