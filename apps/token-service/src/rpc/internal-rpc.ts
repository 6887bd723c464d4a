import type { MaintenanceMethods } from '@latchkey/contracts';
import { applyDecorators } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { CallableBy } from './caller.js';

/** The handler of a call between Latchkey's own services, `latchkey.internal.v1.Maintenance`: for jobs alone. */
export const InternalRpc = (method: Capitalize<keyof MaintenanceMethods>): MethodDecorator =>
  applyDecorators(GrpcMethod('Maintenance', method), CallableBy('jobs'));

/** Rows that one call handles: as many as are asked for, but at least one and at most `max`. */
export const batchLimit = (asked: number, max: number): number => Math.min(Math.max(asked, 1), max);
