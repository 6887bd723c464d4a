import { Module } from '@nestjs/common';
import { DatabaseModule } from '../database/index.js';
import { VerificationModule } from '../verification/index.js';
import { SystemController } from './system.controller.js';
import { SystemService } from './system.service.js';

@Module({ imports: [DatabaseModule, VerificationModule], controllers: [SystemController], providers: [SystemService] })
export class SystemModule {}
