import { homedir } from 'node:os';
import path from 'node:path';
import { ConfigError, loadConfig, type Settings, settingSchema } from '@latchkey/runtime';
import { z } from 'zod';

const port = settingSchema.integer(0, 65_535);
const databaseUrl = settingSchema.url('postgres:', 'postgresql:').optional();

/** What `npm start` reads from the environment; port 0 means any free port. */
export const settings = {
  HOST: { description: 'Address that the gateway listens on', default: '127.0.0.1', schema: z.string() },
  PORT: { description: "The gateway's public port", default: '8080', schema: port },
  OPS_PORT: {
    description: "Port of the gateway's metrics and forward-auth; token-service and jobs use the next two",
    default: '8081',
    schema: port,
  },
  API_PORT: { description: "Port of the token-service's HTTP API", default: '8090', schema: port },
  RPC_PORT: { description: "Port of the token-service's gRPC API", default: '50051', schema: port },
  AUTHZ_PORT: { description: "Port of the gateway's gRPC API for Envoy", default: '50052', schema: port },
  DEMO_PORT: { description: 'Port of the demo upstream', default: '4010', schema: port },
  PUBLIC_URL: {
    description: 'Public URL; required when HOST is not a loopback address',
    schema: settingSchema.url('http:', 'https:').optional(),
  },
  LATCHKEY_HOME: { description: 'Folder for data and secrets', default: '.latchkey', schema: z.string() },
  LEDGER_DIR: {
    description:
      'Folder of the ledger, which keeps what was revoked outside the database and every backup; default: latchkey/ledger in XDG_STATE_HOME or ~/.local/state',
    schema: z.string().min(1).optional(),
  },
  ADMIN_EMAIL: {
    description: 'Email of the first administrator',
    default: 'admin@latchkey.local',
    schema: z.email('must be an email address'),
  },
  ADMIN_PASSWORD: {
    description: 'Password of the first administrator; generated and printed once when absent',
    secret: true,
    schema: z.string().min(12, 'must have at least 12 characters').max(200).optional(),
  },
  GATEWAY_CONFIG: { description: 'Routes file', default: 'infra/gateway.yaml', schema: z.string() },
  LEASE_MS: {
    description: 'How long a verifier checks from memory without a renewal, in milliseconds',
    default: '10000',
    schema: settingSchema.integer(200, 600_000),
  },
  LOG_LEVEL: {
    description: 'Minimum log level: trace, debug, info, warn, error or fatal',
    default: 'info',
    schema: settingSchema.logLevel,
  },
  DATABASE_URL: {
    description: 'Your own PostgreSQL, as the owner of the schema; started when absent',
    secret: true,
    schema: databaseUrl,
  },
  REDIS_URL: {
    description: 'Your own Redis; started when absent',
    secret: true,
    schema: settingSchema.url('redis:', 'rediss:').optional(),
  },
} satisfies Settings;

/** The validated settings of one start. */
export interface LauncherSettings {
  home: string;
  ledgerDir: string;
  host: string;
  ports: Record<PortName, number>;
  /** `null`: the gateway's URL on this machine, known once its port is chosen. */
  publicUrl: string | null;
  adminEmail: string;
  adminPassword: string | null;
  gatewayConfig: string;
  leaseMs: number;
  logLevel: string;
  databaseUrl: string | null;
  redisUrl: string | null;
}

/** Every port that the launcher assigns, by the variable that sets it. */
export const portNames = ['PORT', 'OPS_PORT', 'API_PORT', 'RPC_PORT', 'AUTHZ_PORT', 'DEMO_PORT'] as const;
export type PortName = (typeof portNames)[number];

/**
 * Reads and checks the environment.
 *
 * @param root the repository, to which paths are relative
 * @throws ConfigError naming every invalid variable
 */
export function readSettings(root: string, env: NodeJS.ProcessEnv): LauncherSettings {
  const config = loadConfig(settings, env);
  if (!isLoopback(config.HOST) && !config.PUBLIC_URL) {
    throw new ConfigError([
      `PUBLIC_URL is required because HOST=${config.HOST} makes the gateway reachable by others: ` +
        'set it to the public URL, such as https://tokens.example.org',
    ]);
  }
  if (config.PUBLIC_URL && new URL(config.PUBLIC_URL).pathname !== '/') {
    throw new ConfigError(['PUBLIC_URL must have no path: the gateway serves from /']);
  }
  const ports = Object.fromEntries(portNames.map((name) => [name, config[name]])) as Record<PortName, number>;
  return {
    home: path.resolve(root, config.LATCHKEY_HOME),
    ledgerDir: path.resolve(root, config.LEDGER_DIR ?? defaultLedgerDir(env)),
    host: config.HOST,
    ports,
    publicUrl: config.PUBLIC_URL ? new URL(config.PUBLIC_URL).origin : null,
    adminEmail: config.ADMIN_EMAIL,
    adminPassword: config.ADMIN_PASSWORD ?? null,
    gatewayConfig: path.resolve(root, config.GATEWAY_CONFIG),
    leaseMs: config.LEASE_MS,
    logLevel: config.LOG_LEVEL,
    databaseUrl: config.DATABASE_URL ?? null,
    redisUrl: config.REDIS_URL ?? null,
  };
}

/** Where a user's programs keep what must outlive them (XDG Base Directory Specification): not in this folder. */
const defaultLedgerDir = (env: NodeJS.ProcessEnv): string =>
  path.join(env['XDG_STATE_HOME'] || path.join(homedir(), '.local', 'state'), 'latchkey', 'ledger');

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);
}
