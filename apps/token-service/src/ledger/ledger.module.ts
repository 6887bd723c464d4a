import { Module } from '@nestjs/common';
import { DatabaseModule } from '../database/index.js';
import { LedgerService } from './ledger.service.js';
import { PostgresLedgerStore } from './postgres-store.js';

@Module({ imports: [DatabaseModule], providers: [PostgresLedgerStore, LedgerService], exports: [LedgerService] })
export class LedgerModule {}
