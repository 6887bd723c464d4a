import type { BatchResponse } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { CallableBy } from '../rpc/index.js';
import { AuditChain } from './chain.service.js';

const BATCH_MAX = 5_000;

/** What jobs asks the sole writer to do about the audit log: `latchkey.internal.v1.Maintenance`, this room's part. */
@Controller()
export class AuditMaintenanceRpc {
  constructor(private readonly chain: AuditChain) {}

  @GrpcMethod('Maintenance', 'SealAudit')
  @CallableBy('jobs')
  sealAudit({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.chain.seal(Math.min(Math.max(limit, 1), BATCH_MAX));
  }
}
