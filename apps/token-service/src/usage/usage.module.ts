import { Module } from '@nestjs/common';
import { RedisModule } from '../redis/index.js';
import { UsageService } from './usage.service.js';

@Module({ imports: [RedisModule], providers: [UsageService], exports: [UsageService] })
export class UsageModule {}
