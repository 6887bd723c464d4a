import path from 'node:path';
import { ConfigError, loadConfig, type Settings, settingSchema } from '@latchkey/runtime';
import { z } from 'zod';

const port = settingSchema.integer(0, 65_535);
const databaseUrl = settingSchema.url('postgres:', 'postgresql:').optional();

/** What `npm start` reads from the environment; 0 as a port takes any free one. */
export const settings = {
  HOST: { description: 'Address of the public door', default: '127.0.0.1', schema: z.string() },
  PORT: { description: 'The public door', default: '8080', schema: port },
  OPS_PORT: {
    description: "The gateway's metrics and forward-auth; token-service and jobs have the next two",
    default: '8081',
    schema: port,
  },
  API_PORT: { description: "The token-service's own HTTP door", default: '8090', schema: port },
  RPC_PORT: { description: "The token-service's gRPC", default: '50051', schema: port },
  AUTHZ_PORT: { description: "The gateway's gRPC for Envoy", default: '50052', schema: port },
  DEMO_PORT: { description: 'The demo upstream', default: '4010', schema: port },
  PUBLIC_URL: {
    description: 'The address people use; required when HOST is not this machine alone',
    schema: settingSchema.url('http:', 'https:').optional(),
  },
  LATCHKEY_HOME: { description: 'Folder for data and secrets', default: '.latchkey', schema: z.string() },
  ADMIN_EMAIL: {
    description: 'The first administrator',
    default: 'admin@latchkey.local',
    schema: z.email('must be an e-mail address'),
  },
  ADMIN_PASSWORD: {
    description: "The first administrator's password; made up and printed once when absent",
    secret: true,
    schema: z.string().min(12, 'must have at least 12 characters').max(200).optional(),
  },
  GATEWAY_CONFIG: { description: 'Routes file', default: 'infra/gateway.yaml', schema: z.string() },
  LEASE_MS: {
    description: 'How long a verifier answers from memory, in milliseconds',
    default: '10000',
    schema: settingSchema.integer(200, 600_000),
  },
  LOG_LEVEL: {
    description: 'Least level of log lines: trace, debug, info, warn, error or fatal',
    default: 'info',
    schema: settingSchema.logLevel,
  },
  DATABASE_URL: {
    description: 'A PostgreSQL of your own, as the owner of the schema',
    secret: true,
    schema: databaseUrl,
  },
  REDIS_URL: {
    description: 'A Redis of your own',
    secret: true,
    schema: settingSchema.url('redis:', 'rediss:').optional(),
  },
} satisfies Settings;

/** The settings of one start, checked. */
export interface LauncherSettings {
  home: string;
  host: string;
  ports: Record<PortName, number>;
  /** `null`: the public door's own address, known once its port is. */
  publicUrl: string | null;
  adminEmail: string;
  adminPassword: string | null;
  gatewayConfig: string;
  leaseMs: number;
  logLevel: string;
  databaseUrl: string | null;
  redisUrl: string | null;
}

/** Every port that the launcher hands out, by the variable that sets it. */
export const portNames = ['PORT', 'OPS_PORT', 'API_PORT', 'RPC_PORT', 'AUTHZ_PORT', 'DEMO_PORT'] as const;
export type PortName = (typeof portNames)[number];

/**
 * Reads and checks the environment.
 *
 * @param root the repository; relative paths start there
 * @throws ConfigError naming every variable that is wrong
 */
export function readSettings(root: string, env: NodeJS.ProcessEnv): LauncherSettings {
  const config = loadConfig(settings, env);
  if (!isLoopback(config.HOST) && !config.PUBLIC_URL) {
    throw new ConfigError([
      `PUBLIC_URL is required because HOST=${config.HOST} lets others reach the public door: ` +
        'set it to the address that people use, such as https://tokens.example.org',
    ]);
  }
  if (config.PUBLIC_URL && new URL(config.PUBLIC_URL).pathname !== '/') {
    throw new ConfigError(['PUBLIC_URL must have no path: the public door serves from /']);
  }
  const ports = Object.fromEntries(portNames.map((name) => [name, config[name]])) as Record<PortName, number>;
  return {
    home: path.resolve(root, config.LATCHKEY_HOME),
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

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);
}
