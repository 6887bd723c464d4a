import type { BatchResponse } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { batchLimit, InternalRpc } from '../rpc/index.js';
import { AuditChain } from './chain.service.js';

const BATCH_MAX = 5_000;

/** The calls of jobs for the audit log: this module's part of `latchkey.internal.v1.Maintenance`. */
@Controller()
export class AuditMaintenanceRpc {
  constructor(private readonly chain: AuditChain) {}

  @InternalRpc('SealAudit')
  sealAudit({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.chain.seal(batchLimit(limit, BATCH_MAX));
  }
}
