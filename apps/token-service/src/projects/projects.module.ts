import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuditModule } from '../audit/index.js';
import { DatabaseModule } from '../database/index.js';
import { InvalidationModule } from '../invalidation/index.js';
import { VerificationModule } from '../verification/index.js';
import { MemberEntity, ProjectEntity } from './project.entity.js';
import { ProjectsController } from './projects.controller.js';
import { ProjectsService } from './projects.service.js';

@Module({
  imports: [
    TypeOrmModule.forFeature([MemberEntity, ProjectEntity]),
    AuditModule,
    DatabaseModule,
    InvalidationModule,
    VerificationModule,
  ],
  controllers: [ProjectsController],
  providers: [ProjectsService],
})
export class ProjectsModule {}
