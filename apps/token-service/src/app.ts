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
  checkRedis,
  createRegistry,
  type LiveSettings,
  type Logger,
  NestLogger,
  PROTO_OPTIONS,
  respondFirst,
  startOps,
  systemClock,
} from '@latchkey/runtime';
import { NestFactory } from '@nestjs/core';
import { type MicroserviceOptions, Transport } from '@nestjs/microservices';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { HealthImplementation, protoPath as healthProto } from 'grpc-health-check';
import { PeopleService } from './accounts/index.js';
import { appModule } from './app.module.js';
import { VerifyFront } from './authentication/index.js';
import { type TokenServiceConfig, VERSION } from './config.js';
import { checkDatabase, Database, isDatabaseUnavailable } from './database/index.js';
import { createAdapter } from './http/index.js';
import { InvalidationService } from './invalidation/index.js';
import { LedgerService } from './ledger/index.js';
import { DeclarationsService } from './maintenance/index.js';
import { redisToken } from './redis/index.js';
import { RestoreService } from './system/index.js';
import { UsageService } from './usage/index.js';
import { OwnVerifierService, PeppersService } from './verification/index.js';

/** A running token-service. */
export interface TokenService {
  /** `http://host:port` of the HTTP API. */
  apiUrl: string;
  opsUrl: string;
  /** `host:port` of the gRPC API. */
  rpcAddress: string;
  /** Stops accepting requests, finishes open ones, then closes connections. */
  stop(): Promise<void>;
}

const VERIFY = `/${PROTO_PACKAGE}.Tokens/Verify`;
const RPC_MESSAGE_BYTES_MAX = 1_048_576;
/** Services of gRPC health; the empty name is the whole server. */
const SERVICES = ['', `${PROTO_PACKAGE}.Tokens`, `${INTERNAL_PROTO_PACKAGE}.Maintenance`];
const RPC_GRACE_MS = 60_000;
const HEALTH_EVERY_MS = 1_000;
const HEALTH_TIMEOUT_MS = 2_000;
/** Attempts at the start while PostgreSQL is unavailable, for instance on a busy machine. */
const START_ATTEMPTS_MAX = 5;
const START_RETRY_PAUSE_MS = 500;
/** How long streams have to move to another server before this one stops. */
const STREAMS_STOP_MS = 1_000;

/** Retries while PostgreSQL is unavailable. @param work is safe to repeat */
async function withRetries(work: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await work();
      return;
    } catch (error) {
      if (attempt === START_ATTEMPTS_MAX || !isDatabaseUnavailable(error)) throw error;
      await sleep(START_RETRY_PAUSE_MS);
    }
  }
}

/**
 * Starts the token-service. Port 0: any free port.
 * @param given where `config` comes from, to be watched
 * @throws ConfigError when tokens depend on a pepper that is not configured; StartError when PostgreSQL is unavailable, has
 *   another schema or is behind a pooler, or Redis is a cluster or a Sentinel; when a port is in use
 */
export async function startTokenService(
  config: TokenServiceConfig,
  logger: Logger,
  clock: Clock = systemClock,
  given?: LiveSettings<TokenServiceConfig>,
): Promise<TokenService> {
  await checkDatabase(config, logger);
  const app = await NestFactory.create<NestFastifyApplication>(
    appModule(config, logger, clock),
    createAdapter(config, logger),
    {
      logger: new NestLogger(logger),
      bodyParser: false,
      abortOnError: false,
    },
  );
  const rpc = rpcServer(config, app.get(VerifyFront));
  try {
    app.connectMicroservice<MicroserviceOptions>(rpc.options, { inheritAppConfig: true });
    await app.init();
    await checkRedis(app.get(redisToken('usage')), logger);
    await withRetries(() => app.get(PeppersService).start());
    await app.get(RestoreService).start();
    await withRetries(() => app.get(PeopleService).ensureFirstAdministrator());
    await withRetries(() => app.get(DeclarationsService).announceChange());
    await app.startAllMicroservices();
    await app.listen({ port: config.API_PORT, host: config.HOST });
    const database = app.get(Database);
    void database.checkDurability(); // logs a warning only, so the start does not wait for it
    const stopReporting = reportHealth(database, rpc.health);
    const registry = createRegistry('token-service', VERSION);
    app.get(InvalidationService).registerMetrics(registry);
    database.registerMetrics(registry);
    app.get(UsageService).registerMetrics(registry);
    app.get(OwnVerifierService).registerMetrics(registry);
    app.get(PeppersService).registerMetrics(registry);
    app.get(LedgerService).registerMetrics(registry);
    app.get(RestoreService).registerMetrics(registry);
    given?.registerMetrics(registry);
    const scopes = app.get(DeclarationsService).watch;
    const ops = await startOps({
      host: config.HOST,
      port: config.OPS_PORT,
      version: VERSION,
      registry,
      checks: { database: async () => void (await database.query('SELECT 1')) },
      warnings: {
        ledger: async () => app.get(LedgerService).mustBeWritten(),
        restore: () => app.get(RestoreService).mustBeSettled(),
        scopes: async () => {
          if (scopes?.fault !== undefined) throw new Error(scopes.fault);
        },
        ...(given && { settings: () => given.mustBeInUse() }),
      },
      reload: async () => {
        const results = await Promise.allSettled([given?.reload(), scopes?.now()]);
        const reasons = results.flatMap((one) => (one.status === 'rejected' ? [(one.reason as Error).message] : []));
        if (reasons.length > 0) throw new Error(reasons.join('; '));
        return { pending: given?.pending ?? [] };
      },
    });
    given?.start();
    scopes?.start();
    const stopNow = async () => {
      given?.stop();
      stopReporting();
      for (const service of SERVICES) rpc.health.setStatus(service, 'NOT_SERVING');
      // Refuses new calls: clients open their next stream at another server before the present one ends.
      rpc.stopAccepting();
      await app.get(OwnVerifierService).stop();
      await app.get(InvalidationService).watch.stop(STREAMS_STOP_MS);
      // A connection whose last response is sent while closing would stay open for the next request.
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
      apiUrl: urlOf(config.HOST, http, config.API_TLS_CERT_FILE === undefined ? 'http' : 'https'),
      opsUrl: urlOf(config.HOST, ops),
      rpcAddress: `${config.HOST}:${rpc.port()}`,
      stop,
    };
  } catch (error) {
    await app.close();
    throw error;
  }
}

/** Sets gRPC health by whether the database responds, and logs an outage that no request sees. @returns stops it */
function reportHealth(database: Database, health: HealthImplementation): () => void {
  let checking = false;
  let stopped = false;
  const check = async () => {
    if (checking) return;
    checking = true;
    const responds = database.query('SELECT 1').then(
      () => undefined,
      (error: Error) => error.message || 'no connection',
    );
    const reason = await Promise.race([responds, sleep(HEALTH_TIMEOUT_MS, `no response in ${HEALTH_TIMEOUT_MS} ms`)]);
    if (stopped) return;
    if (reason === undefined) database.outage.worked();
    else database.outage.failed(reason);
    for (const service of SERVICES) health.setStatus(service, reason === undefined ? 'SERVING' : 'NOT_SERVING');
    checking = false;
  };
  const timer = setInterval(() => void check(), HEALTH_EVERY_MS);
  timer.unref();
  return () => {
    stopped = true;
    clearInterval(timer);
  };
}

/** The gRPC server with health and reflection; plain text unless certificates are configured. */
function rpcServer(config: TokenServiceConfig, verify: VerifyFront) {
  const health = new HealthImplementation(Object.fromEntries(SERVICES.map((service) => [service, 'SERVING'])));
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
      channelOptions: {
        'grpc.max_connection_age_ms': config.RPC_CONNECTION_AGE_MS,
        // Longer than any call; streams begin again on another connection, at their place.
        'grpc.max_connection_age_grace_ms': RPC_GRACE_MS,
      },
      // Detects a dead peer and closes its streams.
      keepalive: { keepaliveTimeMs: 10_000, keepaliveTimeoutMs: 3_000 },
      onLoadPackageDefinition: (definition: PackageDefinition, server: Pick<RpcServer, 'addService'>) => {
        respondFirst(server as RpcServer, VERIFY, (call: Parameters<VerifyFront['respond']>[0]) =>
          verify.respond(call),
        );
        health.addToServer(server as RpcServer);
        new ReflectionService({ ...definition, ...loadSync(healthProto, PROTO_OPTIONS) }).addToServer(server);
        port = boundPort(server as RpcServer) ?? port;
        running = server as RpcServer;
      },
    },
  };
  /** Closes the listener and sends GOAWAY on every connection; open calls continue. */
  const stopAccepting = () => running?.tryShutdown(() => undefined);
  return { options, health, port: () => port, stopAccepting };
}

/** Nest binds before it registers services and does not expose the port; grpc-js stores it. */
function boundPort(server: RpcServer): number | undefined {
  const { boundPorts } = server as unknown as { boundPorts?: Map<string, { portNumber: number }> };
  return boundPorts && [...boundPorts.values()][0]?.portNumber;
}

function rpcCredentials(config: TokenServiceConfig): ServerCredentials {
  const { RPC_TLS_CERT_FILE: cert, RPC_TLS_KEY_FILE: key } = config;
  if (!cert || !key) return ServerCredentials.createInsecure();
  return ServerCredentials.createSsl(null, [{ cert_chain: readFileSync(cert), private_key: readFileSync(key) }]);
}

const urlOf = (host: string, server: { address(): AddressInfo | string | null }, scheme = 'http'): string =>
  `${scheme}://${host}:${(server.address() as AddressInfo).port}`;

const closed = (server: HttpServer): Promise<void> =>
  new Promise((resolve, reject) => server.close((error) => (error ? reject(error) : resolve())));
