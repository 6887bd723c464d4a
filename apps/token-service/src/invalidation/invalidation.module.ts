import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/index.js';
import { DatabaseModule } from '../database/index.js';
import { LedgerModule } from '../ledger/index.js';
import { RedisModule } from '../redis/index.js';
import { HoldersService } from './holders.service.js';
import { InvalidationRpc } from './invalidation.rpc.js';
import { InvalidationService } from './invalidation.service.js';
import { ReceiptsService } from './receipts.service.js';
import { WatchRpc } from './watch.rpc.js';

@Module({
  imports: [AuditModule, DatabaseModule, LedgerModule, RedisModule],
  controllers: [InvalidationRpc, WatchRpc],
  providers: [HoldersService, InvalidationService, ReceiptsService],
  exports: [InvalidationService, ReceiptsService],
})
export class InvalidationModule {}
