import type { MaintenanceMethods } from '@latchkey/contracts';
import { applyDecorators } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { CallableBy } from './caller.js';

/** The handler of a call between Latchkey's own services, `latchkey.internal.v1.Maintenance`: for jobs only. */
export const InternalRpc = (method: Capitalize<keyof MaintenanceMethods>): MethodDecorator =>
  applyDecorators(GrpcMethod('Maintenance', method), CallableBy('jobs'));

/** Rows that one call handles: as many as requested, but at least one and at most `max`. */
export const batchLimit = (requested: number, max: number): number => Math.min(Math.max(requested, 1), max);
