import { type Metadata, status } from '@grpc/grpc-js';
import type { RenewRequest, RenewResponse } from '@latchkey/contracts';
import { Controller, UseFilters, UseGuards } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { callerOf, RpcCallerGuard, RpcErrorFilter, refuse } from '../rpc/index.js';
import { InvalidationService } from './invalidation.service.js';
import { type LeaseCaller, LeaseRefused } from './leases.js';

const CODES = {
  invalid: status.INVALID_ARGUMENT,
  foreign: status.PERMISSION_DENIED,
  too_many: status.RESOURCE_EXHAUSTED,
} as const;

/** The gRPC door of leases. */
@Controller()
@UseGuards(RpcCallerGuard)
@UseFilters(RpcErrorFilter)
export class InvalidationRpc {
  constructor(private readonly invalidations: InvalidationService) {}

  @GrpcMethod('Tokens', 'Renew')
  renew(request: RenewRequest, metadata: Metadata): Promise<RenewResponse> {
    return refusing(() => this.invalidations.leases.renew(request, leaseCaller(metadata)));
  }

  @GrpcMethod('Tokens', 'Release')
  async release({ verifierId }: { verifierId: string }, metadata: Metadata): Promise<{ released: boolean }> {
    return { released: await refusing(() => this.invalidations.leases.release(verifierId, leaseCaller(metadata))) };
  }
}

function leaseCaller(metadata: Metadata): LeaseCaller {
  const caller = callerOf(metadata);
  return caller.type === 'first-party'
    ? { id: 'first-party', firstParty: true }
    : { id: `token:${caller.tokenId}`, firstParty: false };
}

async function refusing<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof LeaseRefused) throw refuse(CODES[error.reason], error.message);
    throw error;
  }
}
