import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ConfigError,
  CredentialState,
  checkRedis,
  createRedis,
  createRegistry,
  firstParty,
  freePort,
  type LiveSettings,
  type Logger,
  listen,
  RateLimits,
  type ReadinessCheck,
  systemClock,
  tokensCaller,
  usageStream,
} from '@latchkey/runtime';
import { UsageReporter, Verifier } from '@latchkey/verifier';
import type { Redis } from 'ioredis';
import type { Registry } from 'prom-client';
import { CertificateError, CertificateWatch, readCertificate } from './certificate.js';
import { Checks } from './check/index.js';
import { type GatewayConfig, SILENT, VERSION } from './config.js';
import { redisFeed, tokenSource } from './connections.js';
import { UpstreamPools } from './engine/index.js';
import {
  Console,
  Delegated,
  ForwardAuth,
  Management,
  OpsServer,
  Peers,
  ProxyHandler,
  PublicServer,
} from './handlers/index.js';
import { Metrics } from './metrics.js';
import { startNestPart } from './nest/index.js';
import {
  parseRoutes,
  type Reloaded,
  type RoutesSource,
  RoutesWatch,
  readRoutes,
  readTls,
  withSettings,
} from './routes/index.js';
import { Stop, type StopOptions, stopLimits, within } from './stop.js';
import { OpenExchanges } from './streams/index.js';

/** A running gateway. */
export interface Gateway {
  readonly port: number;
  readonly opsPort: number;
  readonly authzPort: number;
  readonly url: string;
  /** How many, at the start. */
  readonly routes: number;
  /** Of the routes, at the start: the first 16 hexadecimal digits of the SHA-256 of the file and of those that it names. */
  readonly routesHash: string;
  /** Reads the files of the routes and of settings at once; an invalid one changes nothing. */
  reload(): Promise<Reloaded>;
  /** Reads the files of settings at once. @returns why one cannot be used */
  reloadSettings(): Promise<string | undefined>;
  /** @throws RoutesFileError, and changes nothing */
  useRoutes(source: RoutesSource): void;
  /** At the public port. */
  openConnections(): number;
  /** So many connections close after their next response; replaces an earlier number. */
  closeSurplus(connections: number): void;
  /** Of this process. */
  metrics(): ReturnType<Registry['getMetricsAsJSON']>;
  /**
   * Says that it is not ready and goes on accepting for SHUTDOWN_DELAY_MS, then drains open requests (8 s), ends streams,
   * sends the last usage and releases the lease. Idempotent; `atOnce` hurries a stop that is under way.
   */
  stop(options?: StopOptions): Promise<void>;
}

/** Of a gateway that is one of several processes. */
export interface AsProcess {
  /** Its number, from 1. */
  readonly n: number;
  readonly routes: RoutesSource;
  readonly authzPort: number;
  /** Whether it listens only once it holds a lease: others serve meanwhile. */
  readonly awaitLease: boolean;
  /** The metrics of all processes, as text. */
  readonly metrics: () => Promise<string>;
  /** Reads the routes again for all processes. */
  readonly reload: () => Promise<Reloaded>;
  /** Why what the routes file holds is not in use; undefined: it is. */
  readonly routesFault: () => Promise<string | undefined>;
}

const LEASE_POLL_MS = 50;
/** Longest name of a verifier; a longer one is cut at the front. */
const NAME_LENGTH_MAX = 100;
/** Longest wait for Redis at the start. */
const REDIS_START_MS = 1_000;
/** After this, Redis counts as unavailable: nothing in a request waits for longer. */
const REDIS_COMMAND_TIMEOUT_MS = 200;

/**
 * Starts the gateway: routes file, connections, verifier, listeners. Resolves once it listens; see `/readyz` for
 * whether it is ready.
 * @param given where `config` comes from, to be watched
 * @throws ConfigError, RoutesFileError, or an Error that names a port in use
 */
export async function startGateway(
  config: GatewayConfig,
  logger: Logger,
  as?: AsProcess,
  given?: LiveSettings<GatewayConfig>,
): Promise<Gateway> {
  // Closed in reverse order by an orderly stop and by a failed start.
  const opened: Close[] = [];
  const limits = stopLimits(config.SHUTDOWN_DELAY_MS);
  const closeAll = async (stop: Stop) => {
    for (const close of opened.splice(0).reverse()) await close(stop);
  };
  try {
    const gateway = await open(config, logger, opened, as, given);
    let stopping: Stop | undefined;
    let stopped: Promise<void> | undefined;
    const stop = (options?: StopOptions) => {
      if (options?.atOnce) stopping?.hurry();
      stopping ??= new Stop(limits, options);
      stopped ??= closeAll(stopping);
      return stopped;
    };
    return { ...gateway, stop };
  } catch (error) {
    await closeAll(new Stop(limits, { atOnce: true }));
    throw error;
  }
}

/** @throws ConfigError when the file cannot be read or has no certificate */
function apiTls(caFile: string | undefined) {
  if (caFile === undefined) return undefined;
  return readTls({ ca: caFile }, process.cwd(), new Map(), (_field, message) => {
    throw new ConfigError([`API_CA_FILE: ${message}`]);
  });
}

type Close = (stop: Stop) => unknown;

async function open(
  config: GatewayConfig,
  logger: Logger,
  opened: Close[],
  as?: AsProcess,
  given?: LiveSettings<GatewayConfig>,
): Promise<Omit<Gateway, 'stop'>> {
  const routesIn = ({ text, files }: RoutesSource) => parseRoutes(text, config.GATEWAY_CONFIG, process.env, files);
  const source = as?.routes ?? readRoutes(config.GATEWAY_CONFIG);
  let routes = routesIn(source);
  const consoleFiles = new Console(config.CONSOLE_DIR);
  const certificate = certificateOf(config, as?.awaitLease === true);

  const connect = (name: string, commandTimeout?: number) => {
    const redis = createRedis(
      () => config.REDIS_URL,
      name,
      logger,
      commandTimeout === undefined ? {} : { commandTimeout },
    );
    opened.push(() => redis.disconnect());
    return redis;
  };
  const subscriber = connect('gateway-feed');
  const redis = connect('gateway', REDIS_COMMAND_TIMEOUT_MS);
  const usageRedis = connect('gateway-usage', 2_000);
  // So that the first requests already share rate limits; without Redis the start continues.
  await Promise.all([subscriber, redis, usageRedis].map((connection) => readyWithin(connection, REDIS_START_MS)));
  await checkRedis(usageRedis, logger);
  const speaks = as === undefined || as.n === 1;
  const credential = new CredentialState('GATEWAY_RPC_SECRET', speaks ? logger : SILENT);
  const caller = tokensCaller({
    address: config.RPC_ADDRESS,
    authorization: () => firstParty(config.GATEWAY_RPC_SECRET[0]),
    onAuthorization: (isAccepted) => credential.note(isAccepted),
    ...(config.RPC_CA_FILE && { caFile: config.RPC_CA_FILE }),
  });
  opened.push(() => caller.close());

  const verifier = new Verifier({
    name: `${hostname()}:${config.PORT}${as ? `/${as.n}` : ''}`.slice(-NAME_LENGTH_MAX),
    version: VERSION,
    routesHash: () => routes.hash,
    newClaim: () => randomBytes(32).toString('base64url'),
    onIdentityRefused: (why) => logger.warn({ why }, 'lease refused; the verifier continues under a new id'),
    clock: systemClock,
    source: tokenSource(caller),
    feed: redisFeed(subscriber, redis),
    prefix: config.TOKEN_PREFIX,
  });
  const usage = new UsageReporter({
    sign: (batch) => verifier.signBatch(batch),
    sink: usageStream(usageRedis),
    clock: systemClock,
    onFailure: ({ message }, sequence) => logger.debug({ reason: message, sequence }, 'sending a usage batch failed'),
  });
  const limits = new RateLimits(redis, systemClock);
  const checks = new Checks(verifier, limits, usage);
  const exchanges = new OpenExchanges();
  const upstreams = new UpstreamPools(logger);
  opened.push(() => upstreams.close());
  const registry = createRegistry('gateway', VERSION);
  const watch =
    certificate &&
    new CertificateWatch(certificate, {
      files: certificate.files,
      use: (credentials) => publicServer.http.useCredentials(credentials),
      logger,
      logs: speaks,
    });
  const useRoutes = (next: RoutesSource, table = routesIn(next)) => {
    proxyHandler.use(table);
    routes = table;
  };
  /** The primary's, where there is one. */
  const routesWatch = as
    ? undefined
    : new RoutesWatch(source, routes, { file: config.GATEWAY_CONFIG, env: process.env, use: useRoutes, logger });
  const reloadSettings = async () =>
    given?.reload().then(
      () => undefined,
      ({ message }: Error) => message,
    );
  const reload =
    as?.reload ??
    (async (): Promise<Reloaded> => {
      const [reloaded, reason] = await Promise.all([routesWatch!.reload(), reloadSettings()]);
      return withSettings(reloaded, reason);
    });
  const routesFault = as?.routesFault ?? (async () => routesWatch!.fault);
  given?.registerMetrics(registry);
  const metrics = new Metrics(registry, {
    verifier,
    open: exchanges,
    usage,
    limits,
    upstreams,
    certificate: watch,
    routes: { hash: () => routes.hash, watch: routesWatch },
  });

  let stopping = false;
  const readinessChecks = {
    'token-service': async () => {
      if (stopping) throw new Error('the gateway is stopping');
      if (verifier.state().leaseHeld) return;
      throw new Error(credential.fault ?? 'no lease: the token-service has not responded yet');
    },
  };
  const warnings: Record<string, ReadinessCheck> = {
    credential: () => credential.mustBeAccepted(),
    ...(given && { settings: () => given.mustBeInUse() }),
    routes: async () => {
      const fault = await routesFault();
      if (fault !== undefined) throw new Error(fault);
    },
    ...(watch && {
      'tls-certificate': async () => {
        if (watch.fault !== undefined) throw new Error(watch.fault);
      },
    }),
  };
  /** Without names of files and routes, which are nobody's business. */
  const publicWarnings = { ...warnings };
  for (const name of ['routes', 'settings']) {
    const check = warnings[name];
    if (check)
      publicWarnings[name] = () =>
        check().catch(() => {
          throw new Error('a changed file is not in use; the ops port and the log say which');
        });
  }
  // A lease that is not released expires by itself.
  opened.push((stop) => within(stop.leftMs(stop.limits.stoppedMs), verifier.stop()));
  await verifier.start();
  while (as?.awaitLease && !verifier.state().leaseHeld) await sleep(LEASE_POLL_MS);
  opened.push(async (stop) => {
    if (!(await within(stop.usageMs, usage.stop(stop.usageMs))))
      logger.error('usage since the last batch lost: sending it to Redis failed before the stop');
  });
  usage.start();

  const peers = new Peers(config.TRUSTED_PROXIES, config.FORWARD_AUTH_PEERS);
  const opsHost = config.OPS_HOST || config.HOST;
  // Nest does not report the port of its gRPC server, so 0 is replaced beforehand.
  const authzPort = as?.authzPort || config.AUTHZ_PORT || (await freePort(opsHost));
  const authzAddress = `${bracketed(opsHost)}:${authzPort}`;
  const delegated = new Delegated(checks, () => routes);
  const nest = await startNestPart({ checks, delegated, peers, logger, authzAddress });
  opened.push(() => nest.close());

  const ops = new OpsServer({
    forwardAuth: new ForwardAuth(checks, delegated, peers),
    metrics: { contentType: registry.contentType, text: as?.metrics ?? (() => registry.metrics()) },
    version: VERSION,
    checks: readinessChecks,
    warnings,
    reload,
    isTrustedProxy: peers.isTrustedProxy,
    logger,
    connectionsMax: config.CONNECTIONS_MAX,
  });
  opened.push(() => ops.http.close());
  await listen(ops.http.server, config.OPS_PORT, opsHost);

  const shared = { checks, verifier, open: exchanges, logger, bodyIdleMs: config.BODY_IDLE_MS };
  const proxyHandler = new ProxyHandler({ ...shared, upstreams });
  proxyHandler.use(routes);
  const publicServer = new PublicServer({
    routes: () => routes,
    proxyHandler,
    management: new Management({
      ...shared,
      upstream: upstreams.open(new URL(config.API_URL).origin, apiTls(config.API_CA_FILE)),
      proofSecret: () => config.GATEWAY_PROOF_SECRET[0],
    }),
    console: consoleFiles,
    own: new Map([['/gateway/whoami', nest.serve]]),
    isTrustedProxy: peers.isTrustedProxy,
    checks: readinessChecks,
    warnings: publicWarnings,
    logger,
    connectionsMax: config.CONNECTIONS_MAX,
    tls: certificate,
    observe: metrics.observe,
  });
  const { http } = publicServer;
  for (const watching of [watch, routesWatch, given]) {
    watching?.start();
    opened.push(() => watching?.stop());
  }
  opened.push(() => http.close());
  await listen(http.server, config.PORT, config.HOST);
  opened.push(async (stop) => {
    const servers = [http, ops.http];
    // Where others accept, they are ready in its place.
    stopping = !stop.othersAccept;
    for (const server of servers) server.leave();
    const accepted = stop.accepted();
    if (stop.othersAccept) {
      nest.leave();
      await Promise.race([accepted, Promise.all(servers.map((server) => server.stopAccepting()))]);
    } else await accepted;
    // Streams have no end of their own: the stop would wait for their callers.
    exchanges.endStreams();
    const leftMs = stop.leftMs(stop.limits.drainedMs);
    await Promise.all([...servers, nest].map((server) => server.drain(leftMs)));
    exchanges.close();
    await Promise.all(servers.map((server) => server.close()));
  });

  const { port } = http.server.address() as AddressInfo;
  const { port: opsPort } = ops.http.server.address() as AddressInfo;
  const url = `${certificate ? 'https' : 'http'}://${bracketed(config.HOST)}:${port}`;
  const routesHash = routes.hash;
  const count = routes.routes.length;
  const level = as ? 'debug' : 'info';
  const listening = { ...(!as && { version: VERSION }), url, opsPort, authzPort, routes: count, routesHash };
  logger[level](listening, as ? 'gateway process listening' : 'gateway listening');
  return {
    ...{ port, opsPort, authzPort, url, routes: count, routesHash },
    ...{ reload, reloadSettings, useRoutes, metrics: () => registry.getMetricsAsJSON() },
    openConnections: () => http.connections,
    closeSurplus: (connections) => {
      http.surplus = connections;
    },
  };
}

function readyWithin(redis: Redis, ms: number): Promise<void> {
  return new Promise((resolve) => {
    if (redis.status === 'ready') return resolve();
    const timer = setTimeout(resolve, ms);
    redis.once('ready', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** @throws ConfigError that says what is wrong with the files */
function certificateOf(config: GatewayConfig, acceptsExpired: boolean) {
  const { TLS_CERTIFICATE_FILE, TLS_KEY_FILE } = config;
  if (!TLS_CERTIFICATE_FILE || !TLS_KEY_FILE) return undefined;
  const files = { certificate: TLS_CERTIFICATE_FILE, key: TLS_KEY_FILE };
  try {
    return { ...readCertificate(files, Date.now(), acceptsExpired), files };
  } catch (error) {
    if (error instanceof CertificateError) throw new ConfigError([error.message]);
    throw error;
  }
}

const bracketed = (host: string) => (host.includes(':') ? `[${host}]` : host);
