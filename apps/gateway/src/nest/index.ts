import 'reflect-metadata';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Server } from '@grpc/grpc-js';
import { EXT_AUTHZ_PACKAGE, EXT_AUTHZ_PROTO_FILE, REQUEST_ID_HEADER } from '@latchkey/contracts';
import { type Logger, NestLogger, PROTO_OPTIONS, respondFirst } from '@latchkey/runtime';
import { NestFactory } from '@nestjs/core';
import { type MicroserviceOptions, Transport } from '@nestjs/microservices';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Checks } from '../check/index.js';
import type { CallerRequest } from '../engine/index.js';
import type { Delegated, Peers } from '../handlers/index.js';
import { type ErrorResponse, fieldValue } from '../http/index.js';
import { AppModule } from './app.module.js';
import { type CheckRequest, ExtAuthzController } from './ext-authz.controller.js';
import { GrpcShutdown } from './grpc-shutdown.js';
import { createAdapter, ErrorFilter } from './request.js';

/** Nest's pipeline costs more than the check: its handler is called only when the controller has failed. */
const CHECK = `/${EXT_AUTHZ_PACKAGE}.Authorization/Check`;

/** Nest's part of the gateway: its controllers, called by other listeners, and the gRPC listener. */
export interface NestPart {
  /** Responds to a request of the public port, whose body is not read. */
  serve(request: CallerRequest): void;
  /** Closes the gRPC listener and tells its callers so; calls that were on their way are taken. */
  leave(): Promise<void>;
  /** The same, then takes no more calls. Resolves once none is open, or after `ms`. */
  drain(ms: number): Promise<void>;
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
  let grpc: GrpcShutdown | undefined;
  app.connectMicroservice<MicroserviceOptions>({
    transport: Transport.GRPC,
    options: {
      package: EXT_AUTHZ_PACKAGE,
      protoPath: EXT_AUTHZ_PROTO_FILE,
      url: authzAddress,
      loader: PROTO_OPTIONS,
      maxReceiveMessageLength: 4 * 1024 * 1024,
      gracefulShutdown: true,
      onLoadPackageDefinition: (_definition: object, server: Server) => {
        const controller = app.get(ExtAuthzController);
        respondFirst(server, CHECK, ({ request }: { request: CheckRequest }) => controller.check(request));
        grpc = new GrpcShutdown(server);
      },
    },
  });
  await app.init();
  await app.startAllMicroservices();
  const fastify = app.getHttpAdapter().getInstance();
  await fastify.ready();
  return {
    serve: (request) => {
      const { method, target, text } = request.head;
      if (method !== 'GET' && method !== 'HEAD') return void request.refuse(ONLY_GET);
      const headers = { ...headersIn(text), [REQUEST_ID_HEADER]: request.head.requestId };
      const options = { method, url: target, headers, remoteAddress: request.peerIp } as const;
      fastify.inject(options).then(
        ({ statusCode, statusMessage, headers, rawPayload }) => {
          const lines = Object.entries(headers).filter(([name]) => !FRAMING.has(name));
          const text = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
          request.respond(statusCode, statusMessage, text, rawPayload);
        },
        (error: unknown) => {
          logger.error({ err: error, requestId: request.head.requestId }, 'a request failed');
          request.refuse({ code: 'internal', detail: 'The gateway failed; see its log for this requestId.' });
        },
      );
    },
    leave: () => grpc!.leave(),
    drain: (ms) => grpc!.drain(ms),
    // A caller that reads nothing must not hold the stop up.
    close: () => Promise.race([app.close(), sleep(CALLS_END_MS, undefined, { ref: false })]),
  };
}

const ONLY_GET: ErrorResponse = {
  code: 'method_not_allowed',
  detail: 'This resource supports GET and HEAD only.',
  headers: { allow: 'GET, HEAD' },
};

/** Longest wait at a stop for what Nest still closes. */
const CALLS_END_MS = 500;
/** What the public port writes itself. */
const FRAMING = new Set(['content-length', 'transfer-encoding', 'connection', 'date', REQUEST_ID_HEADER]);

/** The fields of a head, without those of a body. */
function headersIn(text: string): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const line of text.split('\r\n').slice(1, -1)) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    const value = fieldValue(line, colon + 1, line.length);
    if (!BODY.has(name)) headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  return headers;
}

const BODY = new Set(['content-length', 'transfer-encoding', 'expect']);
