import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import {
  createRedis,
  createRegistry,
  firstParty,
  type Logger,
  listen,
  newId,
  startOps,
  systemClock,
  tokensCaller,
} from '@latchkey/runtime';
import { Verifier } from '@latchkey/verifier';
import { Checks } from './check/index.js';
import { type GatewayConfig } from './config.js';
import { redisFeed, tokenSource } from './connections.js';
import { Console, Management, PublicDoor, RouteDoor, Upstreams, WebSocketDoor } from './doors/index.js';
import { networkTest } from './http/index.js';
import { RateLimits } from './limits/index.js';
import { Metrics } from './metrics.js';
import { loadRoutes, type RouteTable } from './routes/index.js';
import { OpenExchanges } from './streams/index.js';
import { Usage } from './usage/index.js';

/** A running gateway. */
export interface Gateway {
  readonly port: number;
  readonly opsPort: number;
  readonly url: string;
  /** Reads the routes file again; a wrong one changes nothing. True when it was taken. */
  reload(): boolean;
  /** Takes no new requests, lets those under way finish (10 s), ends streams, sends the last usage, gives the lease back. */
  stop(): Promise<void>;
}

const DRAIN_MS = 10_000;
/** Redis that does not answer within this is away: nothing in a request waits for longer. */
const REDIS_COMMAND_TIMEOUT_MS = 200;

/**
 * Starts the gateway: routes file, connections, verifier, doors. Resolves once it listens; whether it is ready is
 * another question (`/readyz`).
 * @throws ConfigError, RoutesFileError, or an Error that names a port which is taken
 */
export async function startGateway(config: GatewayConfig, logger: Logger): Promise<Gateway> {
  let routes: RouteTable = loadRoutes(config.GATEWAY_CONFIG);
  const consoleFiles = new Console(config.CONSOLE_DIR);

  const subscriber = createRedis(config.REDIS_URL, 'gateway-feed', logger);
  const redis = createRedis(config.REDIS_URL, 'gateway', logger, { commandTimeout: REDIS_COMMAND_TIMEOUT_MS });
  const usageRedis = createRedis(config.REDIS_URL, 'gateway-usage', logger, { commandTimeout: 2_000 });
  const caller = tokensCaller({ address: config.RPC_ADDRESS, authorization: firstParty(config.RPC_SECRET) });
  const id = newId();

  const verifier = new Verifier({
    id,
    name: `${hostname()}:${config.PORT}`,
    clock: systemClock,
    source: tokenSource(caller),
    feed: redisFeed(subscriber, redis),
    prefix: config.TOKEN_PREFIX,
  });
  const usage = new Usage({
    verifierId: id,
    sign: (batch) => verifier.signBatch(batch),
    redis: usageRedis,
    clock: systemClock,
    logger,
  });
  const limits = new RateLimits(redis);
  const checks = new Checks(verifier, limits, usage);
  const open = new OpenExchanges();
  const upstreams = new Upstreams();
  const registry = createRegistry('gateway');
  const metrics = new Metrics(registry, { verifier, open, usage, limits });
  const shared = { checks, verifier, open, logger, limits: { bodyIdleMs: config.BODY_IDLE_MS } };

  let stopping = false;
  const readinessChecks = {
    'token-service': async () => {
      if (stopping) throw new Error('the gateway stops');
      if (!verifier.state().leaseHeld) throw new Error('no lease: the token-service has not answered yet');
    },
  };
  const door = new PublicDoor({
    routes: () => routes,
    routeDoor: new RouteDoor({ ...shared, upstreams }),
    webSockets: new WebSocketDoor(shared),
    management: new Management({
      upstream: upstreams.get(new URL(config.API_URL).origin),
      rpcSecret: config.RPC_SECRET,
      open,
      limits: shared.limits,
      logger,
    }),
    console: consoleFiles,
    own: new Map(),
    isTrustedProxy: networkTest(config.TRUSTED_PROXIES),
    checks: readinessChecks,
    logger,
    connectionsMax: config.CONNECTIONS_MAX,
    observe: metrics.observe,
  });

  const closeConnections = async () => {
    await upstreams.close();
    caller.close();
    for (const connection of [subscriber, redis, usageRedis]) connection.disconnect();
  };
  try {
    await verifier.start();
    usage.start();
    const ops = await startOps({ host: config.HOST, port: config.OPS_PORT, registry, checks: readinessChecks });
    await listen(door.server, config.PORT, config.HOST);
    const { port } = door.server.address() as AddressInfo;
    const { port: opsPort } = ops.address() as AddressInfo;
    const host = config.HOST.includes(':') ? `[${config.HOST}]` : config.HOST;
    logger.info({ url: `http://${host}:${port}`, opsPort, routes: routes.routes.length }, 'gateway listens');

    return {
      port,
      opsPort,
      url: `http://${host}:${port}`,
      reload() {
        try {
          routes = loadRoutes(config.GATEWAY_CONFIG);
          logger.info({ routes: routes.routes.length }, 'routes read again');
          return true;
        } catch (error) {
          logger.error({ reason: (error as Error).message }, 'the old routes stay');
          return false;
        }
      },
      async stop() {
        stopping = true;
        const closed = new Promise<void>((resolve) => door.server.close(() => resolve()));
        door.server.closeIdleConnections();
        // Streams would otherwise hold up the stop for as long as their callers like.
        open.endStreams();
        await open.drain(DRAIN_MS);
        door.server.closeAllConnections();
        await closed;
        await usage.stop();
        await verifier.stop();
        await new Promise<void>((resolve) => ops.close(() => resolve()));
        ops.closeAllConnections();
        await closeConnections();
      },
    };
  } catch (error) {
    await verifier.stop();
    await closeConnections();
    throw error;
  }
}
