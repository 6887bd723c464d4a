import { status } from '@grpc/grpc-js';
import { type BatchResponse, isId, type ReportUseRequest } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { batchLimit, InternalRpc, refuse } from '../rpc/index.js';
import { MaintenanceService } from './maintenance.service.js';

const BATCH_MAX = 10_000;

/** The calls of jobs for expired rows: this module's part of `latchkey.internal.v1.Maintenance`. */
@Controller()
export class MaintenanceRpc {
  constructor(private readonly maintenance: MaintenanceService) {}

  @InternalRpc('Prune')
  prune({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.maintenance.prune(batchLimit(limit, BATCH_MAX));
  }

  @InternalRpc('ReportUse')
  async reportUse({ tokenId, kind, ip }: ReportUseRequest): Promise<{ recorded: boolean }> {
    if (!isId(tokenId)) throw refuse(status.INVALID_ARGUMENT, 'token_id: must be a UUID');
    if (kind !== 'used_after_rotation') throw refuse(status.INVALID_ARGUMENT, 'kind: must be used_after_rotation');
    return { recorded: await this.maintenance.reportUseAfterRotation(tokenId, ip.slice(0, 45)) };
  }
}
