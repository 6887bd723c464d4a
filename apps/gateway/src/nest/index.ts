import 'reflect-metadata';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { EXT_AUTHZ_PACKAGE, EXT_AUTHZ_PROTO_FILE } from '@latchkey/contracts';
import { type Logger, NestLogger, PROTO_OPTIONS } from '@latchkey/runtime';
import { NestFactory } from '@nestjs/core';
import { type MicroserviceOptions, Transport } from '@nestjs/microservices';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Checks } from '../check/index.js';
import type { Delegated } from '../handlers/index.js';
import { AppModule } from './app.module.js';
import type { Peers } from './peers.js';
import { createAdapter, ErrorFilter } from './request.js';

export { Peers } from './peers.js';

/** Nest's part of the gateway: its controllers, called by other listeners, and the gRPC listener. */
export interface NestPart {
  handle(req: IncomingMessage, res: ServerResponse): void;
  close(): Promise<void>;
}

export interface NestDeps {
  readonly checks: Checks;
  readonly delegated: Delegated;
  readonly peers: Peers;
  readonly logger: Logger;
  /** `host:port` of the gRPC listener. */
  readonly authzAddress: string;
}

/** Starts the controllers and the gRPC listener. */
export async function startNestPart({ checks, delegated, peers, logger, authzAddress }: NestDeps): Promise<NestPart> {
  const app = await NestFactory.create<NestFastifyApplication>(
    AppModule.with(checks, delegated, peers),
    createAdapter(peers.isTrustedProxy),
    { logger: new NestLogger(logger), abortOnError: false },
  );
  app.useGlobalFilters(new ErrorFilter(logger));
  app.connectMicroservice<MicroserviceOptions>({
    transport: Transport.GRPC,
    options: {
      package: EXT_AUTHZ_PACKAGE,
      protoPath: EXT_AUTHZ_PROTO_FILE,
      url: authzAddress,
      loader: PROTO_OPTIONS,
      maxReceiveMessageLength: 4 * 1024 * 1024,
    },
  });
  await app.init();
  await app.startAllMicroservices();
  const fastify = app.getHttpAdapter().getInstance();
  await fastify.ready();
  return {
    handle: (req, res) => fastify.routing(req, res),
    close: () => app.close(),
  };
}
