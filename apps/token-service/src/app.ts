import 'reflect-metadata';
import { readFileSync } from 'node:fs';
import type { Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Server as RpcServer, ServerCredentials } from '@grpc/grpc-js';
import { loadSync, type PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { INTERNAL_PROTO_FILE, INTERNAL_PROTO_PACKAGE, PROTO_FILE, PROTO_PACKAGE } from '@latchkey/contracts';
import {
  type Clock,
  createRegistry,
  type Logger,
  NestLogger,
  PROTO_OPTIONS,
  startOps,
  systemClock,
} from '@latchkey/runtime';
import { NestFactory } from '@nestjs/core';
import { type MicroserviceOptions, Transport } from '@nestjs/microservices';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { HealthImplementation, protoPath as healthProto } from 'grpc-health-check';
import { PeopleService } from './accounts/index.js';
import { appModule } from './app.module.js';
import type { TokenServiceConfig } from './config.js';
import { Database, isDatabaseUnavailable } from './database/index.js';
import { createAdapter } from './http/index.js';
import { InvalidationService } from './invalidation/index.js';
import { DeclarationsService } from './maintenance/index.js';
import { UsageService } from './usage/index.js';

/** A running token-service. */
export interface TokenService {
  /** `http://host:port` of the HTTP door. */
  apiUrl: string;
  opsUrl: string;
  /** `host:port` of the gRPC door. */
  rpcAddress: string;
  /** Stops in order: no new requests, open ones finished, then the connections. */
  stop(): Promise<void>;
}

const RPC_MESSAGE_BYTES_MAX = 1_048_576;
/** What gRPC health is told of: the whole, and the services. */
const SERVED = ['', `${PROTO_PACKAGE}.Tokens`, `${INTERNAL_PROTO_PACKAGE}.Maintenance`];
const HEALTH_EVERY_MS = 1_000;
const HEALTH_TIMEOUT_MS = 2_000;
/** Tries at the start for what PostgreSQL does not answer at once, a busy machine's first connection say. */
const START_ATTEMPTS_MAX = 5;
const START_RETRY_PAUSE_MS = 500;
/** How long streams may take to find another server before this one stops. */
const STREAMS_STOP_MS = 1_000;

/** @param what is safe to repeat */
async function withRetries(what: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await what();
      return;
    } catch (error) {
      if (attempt === START_ATTEMPTS_MAX || !isDatabaseUnavailable(error)) throw error;
      await sleep(START_RETRY_PAUSE_MS);
    }
  }
}

/**
 * Starts the token-service. Ports of 0 take any that is free.
 * @throws when PostgreSQL is away or a port is taken
 */
export async function startTokenService(
  config: TokenServiceConfig,
  logger: Logger,
  clock: Clock = systemClock,
): Promise<TokenService> {
  const app = await NestFactory.create<NestFastifyApplication>(
    appModule(config, logger, clock),
    createAdapter(config, logger),
    {
      logger: new NestLogger(logger),
      bodyParser: false,
      abortOnError: false,
    },
  );
  const rpc = rpcServer(config);
  try {
    app.connectMicroservice<MicroserviceOptions>(rpc.options, { inheritAppConfig: true });
    await app.init();
    await withRetries(() => app.get(PeopleService).ensureFirstAdministrator());
    await withRetries(() => app.get(DeclarationsService).announceChange());
    await app.startAllMicroservices();
    await app.listen({ port: config.API_PORT, host: config.HOST });
    const database = app.get(Database);
    void database.checkDurability(); // a warning: no start waits for it
    const unwatch = reportHealth(database, rpc.health);
    const registry = createRegistry('token-service');
    app.get(InvalidationService).registerMetrics(registry);
    database.registerMetrics(registry);
    app.get(UsageService).registerMetrics(registry);
    const ops = await startOps({
      host: config.HOST,
      port: config.OPS_PORT,
      registry,
      checks: { database: async () => void (await database.query('SELECT 1')) },
    });
    const stopNow = async () => {
      unwatch();
      for (const service of SERVED) rpc.health.setStatus(service, 'NOT_SERVING');
      // No new calls here: whoever holds a stream opens its next one elsewhere before this one ends.
      rpc.stopAccepting();
      await app.get(InvalidationService).watch.stop(STREAMS_STOP_MS);
      // A connection whose last request is answered while closing would be kept open for the next one.
      const sweep = setInterval(() => http.closeIdleConnections(), 50);
      try {
        await app.close();
      } finally {
        clearInterval(sweep);
      }
      await closed(ops);
    };
    let stopping: Promise<void> | undefined;
    const stop = () => {
      stopping ??= stopNow();
      return stopping;
    };
    const http = app.getHttpServer() as HttpServer;
    return {
      apiUrl: urlOf(config.HOST, http),
      opsUrl: urlOf(config.HOST, ops),
      rpcAddress: `${config.HOST}:${rpc.port()}`,
      stop,
    };
  } catch (error) {
    await app.close();
    throw error;
  }
}

/** Keeps gRPC health true to whether the database answers. @returns ends it */
function reportHealth(database: Database, health: HealthImplementation): () => void {
  let asking = false;
  let ended = false;
  const ask = async () => {
    if (asking) return;
    asking = true;
    const answers = database.query('SELECT 1').then(
      () => true,
      () => false,
    );
    const status = (await Promise.race([answers, sleep(HEALTH_TIMEOUT_MS, false)])) ? 'SERVING' : 'NOT_SERVING';
    if (!ended) for (const service of SERVED) health.setStatus(service, status);
    asking = false;
  };
  const timer = setInterval(() => void ask(), HEALTH_EVERY_MS);
  timer.unref();
  return () => {
    ended = true;
    clearInterval(timer);
  };
}

/** The gRPC door with health and reflection beside the services; plain text unless certificates are configured. */
function rpcServer(config: TokenServiceConfig) {
  const health = new HealthImplementation(Object.fromEntries(SERVED.map((service) => [service, 'SERVING'])));
  let port = config.RPC_PORT;
  let running: RpcServer | undefined;
  const options = {
    transport: Transport.GRPC as const,
    options: {
      url: `${config.HOST}:${config.RPC_PORT}`,
      package: [PROTO_PACKAGE, INTERNAL_PROTO_PACKAGE],
      protoPath: [PROTO_FILE, INTERNAL_PROTO_FILE],
      loader: PROTO_OPTIONS,
      credentials: rpcCredentials(config),
      maxReceiveMessageLength: RPC_MESSAGE_BYTES_MAX,
      // A peer that is gone without a word is noticed, and its streams end.
      keepalive: { keepaliveTimeMs: 10_000, keepaliveTimeoutMs: 3_000 },
      onLoadPackageDefinition: (definition: PackageDefinition, server: Pick<RpcServer, 'addService'>) => {
        health.addToServer(server as RpcServer);
        new ReflectionService({ ...definition, ...loadSync(healthProto, PROTO_OPTIONS) }).addToServer(server);
        port = boundPort(server as RpcServer) ?? port;
        running = server as RpcServer;
      },
    },
  };
  /** Closes the listener and tells every connection to go (GOAWAY); open calls go on. */
  const stopAccepting = () => running?.tryShutdown(() => undefined);
  return { options, health, port: () => port, stopAccepting };
}

/** Nest binds before it registers services and keeps the port to itself; grpc-js remembers it. */
function boundPort(server: RpcServer): number | undefined {
  const { boundPorts } = server as unknown as { boundPorts?: Map<string, { portNumber: number }> };
  return boundPorts && [...boundPorts.values()][0]?.portNumber;
}

function rpcCredentials(config: TokenServiceConfig): ServerCredentials {
  const { RPC_TLS_CERT_FILE: cert, RPC_TLS_KEY_FILE: key } = config;
  if (!cert || !key) return ServerCredentials.createInsecure();
  return ServerCredentials.createSsl(null, [{ cert_chain: readFileSync(cert), private_key: readFileSync(key) }]);
}

const urlOf = (host: string, server: { address(): AddressInfo | string | null }): string =>
  `http://${host}:${(server.address() as AddressInfo).port}`;

const closed = (server: HttpServer): Promise<void> =>
  new Promise((resolve, reject) => server.close((error) => (error ? reject(error) : resolve())));
