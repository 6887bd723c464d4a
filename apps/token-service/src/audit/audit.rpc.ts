import type { BatchResponse } from '@latchkey/contracts';
import { Controller, UseFilters, UseGuards } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { FirstPartyOnly, RpcCallerGuard, RpcErrorFilter } from '../rpc/index.js';
import { AuditChain } from './chain.service.js';

const BATCH_MAX = 5_000;

/** What jobs asks the sole writer to do about the audit log: `latchkey.v1.Maintenance`, this room's part. */
@Controller()
@FirstPartyOnly()
@UseGuards(RpcCallerGuard)
@UseFilters(RpcErrorFilter)
export class AuditMaintenanceRpc {
  constructor(private readonly chain: AuditChain) {}

  @GrpcMethod('Maintenance', 'SealAudit')
  sealAudit({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.chain.seal(Math.min(Math.max(limit, 1), BATCH_MAX));
  }
}
