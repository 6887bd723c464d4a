import type { BatchResponse } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { batchLimit, InternalRpc } from '../rpc/index.js';
import { AuditChain } from './chain.service.js';

const BATCH_MAX = 5_000;

/** What jobs asks the sole writer to do about the audit log: `latchkey.internal.v1.Maintenance`, this room's part. */
@Controller()
export class AuditMaintenanceRpc {
  constructor(private readonly chain: AuditChain) {}

  @InternalRpc('SealAudit')
  sealAudit({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.chain.seal(batchLimit(limit, BATCH_MAX));
  }
}
