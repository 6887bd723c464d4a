import { Module } from '@nestjs/common';
import { DatabaseModule } from '../database/index.js';
import { LedgerService } from './ledger.service.js';

@Module({ imports: [DatabaseModule], providers: [LedgerService], exports: [LedgerService] })
export class LedgerModule {}
