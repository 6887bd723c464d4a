import { Module } from '@nestjs/common';
import { DatabaseModule } from '../database/index.js';
import { ScopesService } from './scopes.service.js';

@Module({ imports: [DatabaseModule], providers: [ScopesService], exports: [ScopesService] })
export class AuthorizationModule {}
