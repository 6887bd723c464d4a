import type { Secrets } from './secrets.js';
import type { ServiceSpec } from './service.js';
import type { LauncherSettings, PortName } from './settings.js';

/** Ports and URLs, known once ports are chosen and servers run. */
export interface Addresses {
  ports: Record<PortName, number>;
  /** URL of the gateway on this machine. */
  url: string;
  publicUrl: string;
  /** With the owner of the schema. */
  databaseUrl: string;
  redisUrl: string;
  /** Whether the launcher runs PostgreSQL, and each service has its own role. */
  ownDatabase: boolean;
}

/** Set by the launcher for the services that use them, never passed through. */
const managed = new Set(
  [
    [
      'HOST',
      'PORT',
      'OPS_PORT',
      'API_PORT',
      'RPC_PORT',
      'AUTHZ_PORT',
      'DEMO_PORT',
      'RPC_ADDRESS',
      'API_URL',
      'PUBLIC_URL',
    ],
    [
      'DATABASE_URL',
      'REDIS_URL',
      'TOKEN_PEPPERS',
      'RPC_SECRET',
      'GATEWAY_RPC_SECRET',
      'JOBS_RPC_SECRET',
      'GATEWAY_PROOF_SECRET',
      'JOBS_SEALING_KEY',
      'JOBS_SEALING_PUBLIC_KEY',
      'EVENTS_SECRET',
      'EVENTS_SIGNING_KEY',
      'USAGE_SECRET',
      'LEDGER_KEY',
      'AUDIT_SIGNING_KEY',
      'RECEIPT_SIGNING_KEY',
      'BOARD_PASSWORD',
    ],
    [
      'ADMIN_EMAIL',
      'ADMIN_PASSWORD',
      'GATEWAY_CONFIG',
      'LEASE_MS',
      'LOG_LEVEL',
      'DEMO_UPSTREAM',
      'LATCHKEY_HOME',
      'LEDGER_DIR',
    ],
    [
      'SERVICE_DATABASE_PASSWORD',
      'JOBS_DATABASE_PASSWORD',
      'RETENTION_DATABASE_PASSWORD',
      'RETENTION_DATABASE_URL',
      'OPS_HOST',
    ],
  ]
    .flat()
    .flatMap((name) => [name, `${name}_FILE`]),
);

/** All other variables (TOKEN_PREFIX, SMTP_URL, …) are passed to the services unchanged, except npm's. */
function passedThrough(env: NodeJS.ProcessEnv): Record<string, string> {
  const entries = Object.entries(env).filter(([name]) => !managed.has(name) && !/^npm_/i.test(name));
  return Object.fromEntries(entries.map(([name, value]) => [name, value ?? '']));
}

/** The program that migrates the database to the newest schema. */
export function migration(
  env: NodeJS.ProcessEnv,
  addresses: Addresses,
  secrets: Secrets,
): Omit<ServiceSpec, 'readyUrl'> {
  const roles = {
    SERVICE_DATABASE_PASSWORD: secrets.servicePassword,
    JOBS_DATABASE_PASSWORD: secrets.jobsPassword,
    RETENTION_DATABASE_PASSWORD: secrets.retentionPassword,
  };
  return {
    name: 'migrate',
    entry: 'apps/token-service/dist/migrate.js',
    env: { ...passedThrough(env), DATABASE_URL: addresses.databaseUrl, ...(addresses.ownDatabase && roles) },
  };
}

/** The services in their start order, dependencies first; those of one group start together. */
export function services(
  env: NodeJS.ProcessEnv,
  settings: LauncherSettings,
  addresses: Addresses,
  secrets: Secrets,
): ServiceSpec[][] {
  const { ports } = addresses;
  const base = { ...passedThrough(env), LOG_LEVEL: settings.logLevel, PUBLIC_URL: addresses.publicUrl };
  const inside = { ...base, HOST: '127.0.0.1' };
  const rpc = { RPC_ADDRESS: `127.0.0.1:${ports.RPC_PORT}` };
  const { GATEWAY_RPC_SECRET, JOBS_RPC_SECRET, GATEWAY_PROOF_SECRET } = secrets.credentials;
  const demoUpstream = `http://127.0.0.1:${ports.DEMO_PORT}`;
  const as = (role: string, password: string) => {
    if (!addresses.ownDatabase) return addresses.databaseUrl;
    const url = new URL(addresses.databaseUrl);
    [url.username, url.password] = [role, password];
    return url.href;
  };
  const ready = (port: number) => `http://127.0.0.1:${port}/readyz`;
  return [
    [
      {
        name: 'token-service',
        entry: 'apps/token-service/dist/main.js',
        readyUrl: ready(ports.OPS_PORT + 1),
        env: {
          ...inside,
          OPS_PORT: String(ports.OPS_PORT + 1),
          API_PORT: String(ports.API_PORT),
          RPC_PORT: String(ports.RPC_PORT),
          DATABASE_URL: as('latchkey_service', secrets.servicePassword),
          RETENTION_DATABASE_URL: as('latchkey_retention', secrets.retentionPassword),
          REDIS_URL: addresses.redisUrl,
          TOKEN_PEPPERS: secrets.tokenPeppers,
          ...secrets.credentials,
          JOBS_SEALING_PUBLIC_KEY: secrets.jobsSealingPublicKey,
          EVENTS_SECRET: secrets.eventsSecret,
          EVENTS_SIGNING_KEY: secrets.eventsSigningKey,
          USAGE_SECRET: secrets.usageSecret,
          LEDGER_DIR: settings.ledgerDir,
          LEDGER_KEY: secrets.ledgerKey,
          AUDIT_SIGNING_KEY: secrets.auditSigningKey,
          RECEIPT_SIGNING_KEY: secrets.receiptSigningKey,
          ADMIN_EMAIL: settings.adminEmail,
          ADMIN_PASSWORD: secrets.adminPassword,
          LEASE_MS: String(settings.leaseMs),
          GATEWAY_CONFIG: settings.gatewayConfig,
          DEMO_UPSTREAM: demoUpstream,
        },
      },
    ],
    [
      {
        name: 'gateway',
        entry: 'apps/gateway/dist/main.js',
        readyUrl: ready(ports.OPS_PORT),
        env: {
          ...base,
          HOST: settings.host,
          // Not reachable from where the public port is.
          OPS_HOST: '127.0.0.1',
          PORT: String(ports.PORT),
          OPS_PORT: String(ports.OPS_PORT),
          AUTHZ_PORT: String(ports.AUTHZ_PORT),
          ...rpc,
          GATEWAY_RPC_SECRET,
          GATEWAY_PROOF_SECRET,
          API_URL: `http://127.0.0.1:${ports.API_PORT}`,
          REDIS_URL: addresses.redisUrl,
          GATEWAY_CONFIG: settings.gatewayConfig,
          DEMO_UPSTREAM: demoUpstream,
        },
      },
      {
        name: 'jobs',
        entry: 'apps/jobs/dist/main.js',
        readyUrl: ready(ports.OPS_PORT + 2),
        env: {
          ...inside,
          OPS_PORT: String(ports.OPS_PORT + 2),
          ...rpc,
          JOBS_RPC_SECRET,
          JOBS_SEALING_KEY: secrets.jobsSealingKey,
          DATABASE_URL: as('latchkey_jobs', secrets.jobsPassword),
          REDIS_URL: addresses.redisUrl,
          USAGE_SECRET: secrets.usageSecret,
          BOARD_PASSWORD: secrets.boardPassword,
        },
      },
      {
        name: 'demo-upstream',
        entry: 'examples/demo-upstream/dist/main.js',
        readyUrl: ready(ports.DEMO_PORT),
        env: { ...inside, PORT: String(ports.DEMO_PORT) },
      },
    ],
  ];
}
