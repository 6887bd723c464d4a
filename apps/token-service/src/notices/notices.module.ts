import { Module } from '@nestjs/common';
import { DatabaseModule } from '../database/index.js';
import { NoticesController } from './notices.controller.js';
import { NoticesService } from './notices.service.js';

@Module({ imports: [DatabaseModule], controllers: [NoticesController], providers: [NoticesService] })
export class NoticesModule {}
