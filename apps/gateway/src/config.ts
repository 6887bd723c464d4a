import { availableParallelism } from 'node:os';
import {
  adoptRpcSecret,
  always,
  type Config,
  ConfigError,
  commonSettings,
  credentialSettings,
  type Live,
  LiveSettings,
  type Logger,
  loadConfig,
  onlyPassword,
  rpcSecretSetting,
  type Settings,
  settingSchema,
  versionIn,
} from '@latchkey/runtime';
import { DEFAULT_PREFIX, isPrefix } from '@latchkey/token-format';
import { canonicalAddress } from '@latchkey/verifier';
import { z } from 'zod';

/** The version of this service. */
export const VERSION = versionIn(new URL('../package.json', import.meta.url));

const networks = settingSchema.list.refine(
  (list) => list.every((text) => canonicalAddress(text) !== undefined),
  'must be IP addresses or CIDRs separated by commas, such as 10.0.0.0/8,::1',
);

/** What the gateway reads from the environment. */
export const settings = {
  ...commonSettings,
  PORT: {
    description: 'Public port: routes, console, management API. 0 picks a free port',
    default: '8080',
    schema: settingSchema.port,
  },
  OPS_PORT: {
    description: 'Metrics, health and forward-auth. Never publish it',
    default: '8081',
    schema: settingSchema.port,
  },
  OPS_HOST: {
    description:
      'Address of the ops port and of the gRPC port for Envoy; HOST when empty. Set it when others can reach HOST',
    default: '',
    schema: z.string(),
  },
  AUTHZ_PORT: {
    description: 'gRPC port for Envoy (envoy.service.auth.v3). Never publish it',
    default: '50052',
    schema: settingSchema.port,
  },
  PUBLIC_URL: {
    description: 'The address that people use; required when HOST is not loopback',
    schema: settingSchema.url('http:', 'https:').optional(),
  },
  TLS_CERTIFICATE_FILE: {
    description:
      'PEM certificate of the public port, with the chain that leads to its authority: with it the port speaks TLS 1.2 or 1.3 and HTTP/1.1. Replaced files are noticed. Plain HTTP without one',
    schema: z.string().optional(),
  },
  TLS_KEY_FILE: {
    description: 'PEM private key of that certificate, without a passphrase',
    schema: z.string().optional(),
  },
  RPC_ADDRESS: {
    description:
      "`host:port` of the token-service's gRPC API, or several separated by commas: calls are spread over all of them, and over all addresses of a name",
    default: '127.0.0.1:50051',
    schema: settingSchema.rpcAddress,
  },
  RPC_CA_FILE: {
    description: "PEM certificate of the authority that issued the gRPC API's; plain text without one",
    schema: z.string().optional(),
  },
  GATEWAY_RPC_SECRET: credentialSettings.GATEWAY_RPC_SECRET,
  GATEWAY_PROOF_SECRET: credentialSettings.GATEWAY_PROOF_SECRET,
  ...rpcSecretSetting,
  API_URL: {
    description: "The token-service's HTTP API, which serves /v1, /oauth2 and /mcp",
    default: 'http://127.0.0.1:8090',
    schema: settingSchema.url('http:', 'https:'),
  },
  API_CA_FILE: {
    description:
      'PEM certificate of the authority that issued the one of API_URL, when that is https; without one those that the system trusts',
    schema: z.string().optional(),
  },
  REDIS_URL: {
    description: 'Redis: invalidations, usage, rate limits',
    default: 'redis://127.0.0.1:6379',
    secret: true,
    schema: settingSchema.url('redis:', 'rediss:'),
  },
  TOKEN_PREFIX: {
    description: 'First part of every secret',
    default: DEFAULT_PREFIX,
    schema: z.string().refine(isPrefix, 'must be 1 to 16 lower-case letters and digits, beginning with a letter'),
  },
  GATEWAY_CONFIG: { description: 'The routes file (YAML)', default: 'infra/gateway.yaml', schema: z.string().min(1) },
  CONSOLE_DIR: {
    description: "Folder with the console's built files",
    default: 'apps/console/dist',
    schema: z.string().min(1),
  },
  TRUSTED_PROXIES: {
    description: 'Peers whose X-Forwarded-* and X-Request-Id are trusted: addresses or CIDRs separated by commas',
    default: '',
    schema: networks,
  },
  FORWARD_AUTH_PEERS: {
    description: 'Peers whose X-Forwarded-Method and -Uri are trusted at /forward-auth',
    default: '127.0.0.0/8,::1/128',
    schema: networks,
  },
  GATEWAY_PROCESSES: {
    description:
      'Processes of this gateway, 1 to 128, which share its ports; each is a verifier of its own. Without it, one for each processor that this gateway can use',
    schema: settingSchema
      .integer(1, 128)
      .optional()
      .transform((count) => count ?? availableParallelism()),
  },
  CONNECTIONS_MAX: {
    description: 'Most connections open at the public port of each process; further ones are closed at once',
    default: '10000',
    schema: settingSchema.integer(1, 1_000_000),
  },
  SHUTDOWN_DELAY_MS: {
    description:
      'How long, in milliseconds, a gateway that is told to stop goes on accepting while it says that it is not ready, so that load balancers can leave it; at most 60 000. With it grows the longest stop, see operating.md',
    default: '2000',
    schema: settingSchema.integer(0, 60_000),
  },
  BODY_IDLE_MS: {
    description: 'Longest wait, in milliseconds, for the next bytes of a request body',
    default: '30000',
    schema: settingSchema.integer(100, 3_600_000),
  },
} satisfies Settings;

export type GatewayConfig = Config<typeof settings>;

/** What can be taken over while running. */
export const live: Live<GatewayConfig> = {
  GATEWAY_RPC_SECRET: always,
  GATEWAY_PROOF_SECRET: always,
  REDIS_URL: onlyPassword,
};

type SettingsLogger = Pick<Logger, 'info' | 'warn' | 'error'>;

/** Of several processes one speaks for all. */
export const SILENT: SettingsLogger = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** The configuration of this process. @param warns where no other process has said the same @throws ConfigError */
export function watchedConfig(logger: SettingsLogger, warns: boolean): LiveSettings<GatewayConfig> {
  const load = warns ? gatewayConfig : (env: NodeJS.ProcessEnv) => gatewayConfig(env);
  return new LiveSettings({ env: process.env, settings, load, live, logger });
}

const isLoopback = (host: string) => host === 'localhost' || host === '::1' || host.startsWith('127.');

/**
 * @param warn is called with what should be changed although it works
 * @throws ConfigError naming every setting that is missing or invalid
 */
export function gatewayConfig(env: NodeJS.ProcessEnv = process.env, warn?: (text: string) => void): GatewayConfig {
  const adopted = adoptRpcSecret(env, ['GATEWAY_RPC_SECRET', 'GATEWAY_PROOF_SECRET']);
  const config = loadConfig(settings, adopted.env);
  for (const text of adopted.warnings) warn?.(text);
  if (!isLoopback(config.HOST) && !config.PUBLIC_URL) {
    throw new ConfigError([
      `PUBLIC_URL is required because HOST is ${config.HOST}: set it to the address that people use, such as https://tokens.example.org`,
    ]);
  }
  const { TLS_CERTIFICATE_FILE: certificate, TLS_KEY_FILE: key, PUBLIC_URL } = config;
  if (!certificate !== !key) throw new ConfigError(['TLS_CERTIFICATE_FILE and TLS_KEY_FILE: set both, or neither']);
  if (certificate && PUBLIC_URL?.startsWith('http:'))
    throw new ConfigError([
      `PUBLIC_URL must begin with https:// because TLS_CERTIFICATE_FILE is set (it is ${JSON.stringify(PUBLIC_URL)}); set it to the same address here, at the token-service and at jobs`,
    ]);
  return config;
}
