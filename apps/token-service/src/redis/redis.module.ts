import { createRedis, type Logger } from '@latchkey/runtime';
import { Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import type { Redis, RedisOptions } from 'ioredis';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';

/** The connections, by purpose: a command that waits in one delays no other, and one that subscribes can do nothing else. */
const CONNECTIONS = {
  invalidations: {},
  acknowledgements: {},
  // A slow Redis must not delay responses: after this each replica counts by itself.
  rates: { commandTimeout: 200 },
  usage: { commandTimeout: 2_000 },
} as const satisfies Record<string, RedisOptions>;

const NAMES = Object.keys(CONNECTIONS) as (keyof typeof CONNECTIONS)[];
/** Injection token of the connection of that name. */
export const redisToken = (name: keyof typeof CONNECTIONS): string => `redis ${name}`;

/** Injects the connection of that name. It is closed after the shutdown of those who inject it. */
export const InjectRedis = (name: keyof typeof CONNECTIONS): ParameterDecorator => Inject(redisToken(name));

/** The connections to Redis, each opened once. */
@Module({
  providers: NAMES.map((name) => ({
    provide: redisToken(name),
    inject: [CONFIG, LOGGER],
    useFactory: (config: TokenServiceConfig, logger: Logger) =>
      createRedis(() => config.REDIS_URL, `token-service-${name}`, logger, CONNECTIONS[name]),
  })),
  exports: NAMES.map(redisToken),
})
export class RedisModule implements OnApplicationShutdown {
  constructor(private readonly modules: ModuleRef) {}

  /** Nest shuts modules down before those that they import: no connection is needed any more. */
  onApplicationShutdown(): void {
    for (const name of NAMES) this.modules.get<Redis>(redisToken(name)).disconnect();
  }
}
