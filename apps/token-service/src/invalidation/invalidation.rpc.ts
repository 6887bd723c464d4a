import { type Metadata, status } from '@grpc/grpc-js';
import type { RenewRequest, RenewResponse } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { CallableBy, callerOf, refuse } from '../rpc/index.js';
import { InvalidationService } from './invalidation.service.js';
import { type LeaseCaller, LeaseRefused } from './leases.js';

const CODES = {
  invalid: status.INVALID_ARGUMENT,
  foreign: status.PERMISSION_DENIED,
  too_many: status.RESOURCE_EXHAUSTED,
} as const;

/** The gRPC door of leases. */
@Controller()
export class InvalidationRpc {
  constructor(private readonly invalidations: InvalidationService) {}

  @GrpcMethod('Tokens', 'Renew')
  @CallableBy('gateway', 'token')
  renew(request: RenewRequest, metadata: Metadata): Promise<RenewResponse> {
    return refusing(() => this.invalidations.leases.renew(request, leaseCaller(metadata)));
  }

  @GrpcMethod('Tokens', 'Release')
  @CallableBy('gateway', 'token')
  async release({ verifierId }: { verifierId: string }, metadata: Metadata): Promise<{ released: boolean }> {
    return { released: await refusing(() => this.invalidations.leases.release(verifierId, leaseCaller(metadata))) };
  }
}

function leaseCaller(metadata: Metadata): LeaseCaller {
  const caller = callerOf(metadata);
  if (caller.type === 'gateway') return { id: 'first-party', firstParty: true };
  if (caller.type === 'token') return { id: `token:${caller.tokenId}`, firstParty: false };
  throw refuse(status.PERMISSION_DENIED, 'leases are for verifiers');
}

async function refusing<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof LeaseRefused) throw refuse(CODES[error.reason], error.message);
    throw error;
  }
}
