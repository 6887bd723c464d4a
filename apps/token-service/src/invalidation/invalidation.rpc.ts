import { type Metadata, status } from '@grpc/grpc-js';
import type { ReleaseRequest, RenewRequest, RenewResponse } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { CallableBy, callerName, callerOf, refuse } from '../rpc/index.js';
import { HoldersService } from './holders.service.js';
import { InvalidationService } from './invalidation.service.js';
import { LeaseRefused } from './leases.js';

const CODES = {
  invalid: status.INVALID_ARGUMENT,
  protocol: status.FAILED_PRECONDITION,
  foreign: status.PERMISSION_DENIED,
  ended: status.FAILED_PRECONDITION,
  too_many: status.RESOURCE_EXHAUSTED,
  suspended: status.RESOURCE_EXHAUSTED,
  waiting: status.RESOURCE_EXHAUSTED,
} as const;

/** The gRPC endpoint of leases. */
@Controller()
export class InvalidationRpc {
  constructor(
    private readonly invalidations: InvalidationService,
    private readonly holders: HoldersService,
  ) {}

  @GrpcMethod('Tokens', 'Renew')
  @CallableBy('gateway', 'token')
  async renew(request: RenewRequest, metadata: Metadata): Promise<RenewResponse> {
    const caller = await this.holders.leaseCaller(callerOf(metadata));
    return refusing(() => this.invalidations.leases.renew(request, caller));
  }

  @GrpcMethod('Tokens', 'Release')
  @CallableBy('gateway', 'token')
  async release(request: ReleaseRequest, metadata: Metadata): Promise<{ released: boolean }> {
    const caller = callerName(callerOf(metadata));
    return { released: await refusing(() => this.invalidations.leases.release(request, caller)) };
  }
}

async function refusing<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof LeaseRefused) throw refuse(CODES[error.reason], error.message);
    throw error;
  }
}
