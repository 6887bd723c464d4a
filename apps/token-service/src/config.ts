import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { signerOf } from '@latchkey/contracts';
import {
  adoptRpcSecret,
  always,
  type Config,
  ConfigError,
  type CredentialName,
  commonSettings,
  credentialSettings,
  encryptionSettings,
  type Live,
  loadConfig,
  onlyPassword,
  rpcSecretSetting,
  type Settings,
  settingSchema,
  versionIn,
} from '@latchkey/runtime';
import { DEFAULT_PREFIX, isPrefix } from '@latchkey/token-format';
import { z } from 'zod';

/** The version of this service. */
export const VERSION = versionIn(new URL('../package.json', import.meta.url));

const CREDENTIAL_NAMES = ['GATEWAY_RPC_SECRET', 'JOBS_RPC_SECRET', 'GATEWAY_PROOF_SECRET'] as const;
const ownScopesFile = path.join(import.meta.dirname, '../../../infra/scopes.yaml');

const peppers = z
  .string('is required')
  .transform((text) => text.split(',').map((part) => part.trim()))
  .refine((list) => list.every((pepper) => pepper.length >= 32), 'each pepper must have at least 32 characters')
  .refine((list) => new Set(list).size === list.length, 'contains a pepper twice');

const fingerprints = z
  .string()
  .transform((text) => text.split(',').flatMap((part) => part.trim().toLowerCase() || []))
  .refine((list) => list.every((id) => /^[0-9a-f]{32}$/.test(id)), 'must be fingerprints of 32 hexadecimal digits');

const signingKeys = z
  .string('is required')
  .transform((text) => text.split(',').map((part) => part.trim()))
  .refine((list) => list.every((key) => key.length >= 32), 'each key must have at least 32 characters')
  .refine((list) => list.length <= 2, 'has at most two keys: the current one and the next')
  .refine((list) => new Set(list).size === list.length, 'contains a key twice');

const ed25519Key = z
  .string()
  .transform((pem, context): KeyObject => {
    try {
      const key = createPrivateKey(pem.includes('\\n') ? pem.replaceAll('\\n', '\n') : pem);
      if (key.asymmetricKeyType === 'ed25519') return key;
    } catch {
      // Reported below; the text itself must not be logged.
    }
    context.addIssue('must be an Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)');
    return z.NEVER;
  })
  .optional();

const publicKeys = z.string().transform((text, context): KeyObject[] => {
  const pems = text.replaceAll('\\n', '\n').match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g) ?? [];
  try {
    const keys = pems.map((pem) => createPublicKey(pem));
    if (keys.every((key) => key.asymmetricKeyType === 'ed25519') && (keys.length > 0 || text.trim() === ''))
      return keys;
  } catch {
    // Reported below.
  }
  context.addIssue('must be Ed25519 public keys in PEM, one after the other');
  return z.NEVER;
});
const isHttpsOrLoopback = (address: string): boolean =>
  !URL.canParse(address) ||
  !address.startsWith('http:') ||
  /^(127\.|localhost$|\[::1\]$)/.test(new URL(address).hostname);

/** Every setting of the token-service. */
export const settings = {
  ...commonSettings,
  DATABASE_URL: {
    description: 'PostgreSQL itself, no pooler, as the role latchkey_service',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:'),
  },
  DATABASE_POOL_SIZE: {
    description: 'Most connections to PostgreSQL that one token-service opens',
    default: '20',
    schema: settingSchema.integer(2, 500),
  },
  REDIS_URL: { description: 'Redis', secret: true, schema: settingSchema.url('redis:', 'rediss:') },
  API_PORT: { description: 'Port of the HTTP API', default: '8090', schema: settingSchema.port },
  OPS_PORT: { description: 'Port of /healthz, /readyz and /metrics', default: '8082', schema: settingSchema.port },
  RPC_PORT: { description: 'Port of the gRPC API', default: '50051', schema: settingSchema.port },
  RPC_CONNECTION_AGE_MS: {
    description:
      'How long a gRPC connection takes calls before its client is told to open another one, in milliseconds: so that new token-services get their share',
    default: '300000',
    schema: settingSchema.integer(1_000, 86_400_000),
  },
  PUBLIC_URL: {
    description: 'The address that people use; links, cookies and origin checks come from it',
    default: 'http://127.0.0.1:8080',
    schema: settingSchema.url('http:', 'https:'),
  },
  TOKEN_PREFIX: {
    description: 'Prefix of every secret: 1 to 16 lower-case letters and digits, a letter first',
    default: DEFAULT_PREFIX,
    schema: z.string().refine(isPrefix, 'must be 1 to 16 lower-case letters and digits, beginning with a letter'),
  },
  TOKEN_PEPPERS: {
    description:
      'Comma-separated, each at least 32 characters: the current pepper, then retired ones that still verify',
    secret: true,
    schema: peppers,
  },
  TOKEN_PEPPERS_GIVEN_UP: {
    description:
      'Comma-separated fingerprints of peppers that are lost for good, as the log names them: what depends on them is never accepted again, and the token-service starts without them',
    default: '',
    schema: fingerprints,
  },
  ...credentialSettings,
  ...rpcSecretSetting,
  JOBS_SEALING_PUBLIC_KEY: encryptionSettings.JOBS_SEALING_PUBLIC_KEY,
  EVENTS_SECRET: {
    description:
      "Verifiers' acknowledgement keys are derived from it, at least 32 characters; shared with no other service",
    secret: true,
    schema: settingSchema.secret,
  },
  EVENTS_SIGNING_KEY: {
    description:
      'Comma-separated, each at least 32 characters: invalidations are signed by a key derived from the first (Ed25519); verifiers get the second as the next key. Shared with no other service',
    secret: true,
    schema: signingKeys,
  },
  USAGE_SECRET: {
    description:
      "Comma-separated, each at least 32 characters: verifiers' usage keys are derived from the first; shared with jobs only",
    secret: true,
    schema: settingSchema.secretList,
  },
  AUDIT_SIGNING_KEY: {
    description: 'Ed25519 private key (PEM) that signs checkpoints of the audit chain; without one none are signed',
    secret: true,
    schema: ed25519Key,
  },
  AUDIT_RETIRED_KEYS: {
    description: 'Public keys (PEM, one after the other) of earlier signing keys, whose checkpoints are still accepted',
    default: '',
    schema: publicKeys,
  },
  AUDIT_CHECKPOINT_SECONDS: {
    description: 'Longest time between checkpoints of the audit chain, in seconds',
    default: '5',
    schema: settingSchema.integer(1, 86_400),
  },
  AUDIT_CHECKPOINT_EVENTS: {
    description: 'Most audit events between checkpoints',
    default: '1000',
    schema: settingSchema.integer(1, 1_000_000),
  },
  AUDIT_CHECKPOINT_FILE: {
    description:
      'File that every checkpoint is appended to, preferably on another machine; `/v1/audit/verify` then detects a truncated log',
    schema: z.string().optional(),
  },
  AUDIT_RETENTION_MONTHS: {
    description:
      'Retention of audit events and receipts in whole months, at least 2; 0: forever. Requires RETENTION_DATABASE_URL',
    default: '0',
    schema: settingSchema.integer(0, 1_200).refine((n) => n === 0 || n >= 2, 'must be 0 or at least 2'),
  },
  RETENTION_DATABASE_URL: {
    description: 'PostgreSQL, as the role latchkey_retention, the only one that may delete audit events and receipts',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:').optional(),
  },
  RECEIPT_SIGNING_KEY: {
    description: 'Ed25519 private key (PEM) that signs receipts; without one none are signed',
    secret: true,
    schema: ed25519Key,
  },
  RECEIPT_RETIRED_KEYS: {
    description:
      'Public keys (PEM, one after the other) of earlier signing keys, published at `/v1/receipts/keys` with the current one',
    default: '',
    schema: publicKeys,
  },
  SCOPES_FILE: {
    description:
      "YAML file that declares the guarded APIs' scopes; default: infra/scopes.yaml beside the program, if it exists",
    schema: z
      .string()
      .optional()
      .transform((file) => file ?? (existsSync(ownScopesFile) ? ownScopesFile : undefined)),
  },
  LEDGER_DIR: {
    description:
      'Folder outside the database and every backup, in which the ledger keeps what was revoked; without one a restored backup can undo revocations',
    schema: z.string().min(1).optional(),
  },
  LEDGER_KEY: {
    description:
      'Authenticates the ledger, at least 32 characters; required with LEDGER_DIR, shared with no other service',
    secret: true,
    schema: settingSchema.secret.optional(),
  },
  LEDGER_RETENTION_DAYS: {
    description: 'Retention of the ledger in days: at least the age of the oldest backup that is ever restored',
    default: '400',
    schema: settingSchema.integer(1, 36_500),
  },
  LEASE_MS: {
    description: 'Lease: how long a verifier can check from memory without renewing, in milliseconds',
    default: '10000',
    schema: settingSchema.integer(500, 600_000),
  },
  PROTOCOL_MIN: {
    description:
      'Earliest version of the revocation protocol that gets a lease: 2 includes verifiers of Latchkey 0.1, 3 does not',
    default: '2',
    schema: settingSchema.integer(2, 3),
  },
  ADMIN_EMAIL: {
    description: 'Email address of the first administrator, created at the first start',
    schema: z.email('must be an email address').optional(),
  },
  ADMIN_PASSWORD: {
    description: 'Password of the first administrator, at least 12 characters',
    secret: true,
    schema: z.string().min(12, 'must have at least 12 characters').max(200).optional(),
  },
  OIDC_ISSUER: {
    description: 'Issuer URL of the identity provider (OpenID Connect); plain http only on this machine',
    schema: settingSchema
      .url('http:', 'https:')
      .refine(isHttpsOrLoopback, 'must be an https address, or http on this machine')
      .optional(),
  },
  OIDC_CLIENT_ID: {
    description: 'Client id of Latchkey at the identity provider',
    schema: z.string().min(1).optional(),
  },
  OIDC_CLIENT_SECRET: {
    description: 'Client secret of Latchkey at the identity provider',
    secret: true,
    schema: z.string().min(1).optional(),
  },
  OIDC_NAME: {
    description: 'Name of the identity provider on the sign-in page',
    default: 'single sign-on',
    schema: z.string().min(1).max(100),
  },
  OIDC_CREATE_USERS: {
    description: 'Whether a new person who signs in at the identity provider becomes a member: true or false',
    default: 'false',
    schema: settingSchema.boolean,
  },
  RPC_TLS_CERT_FILE: {
    description: 'PEM certificate of the gRPC API; plain text without it',
    schema: z.string().optional(),
  },
  RPC_TLS_KEY_FILE: { description: 'PEM private key of that certificate', schema: z.string().optional() },
  API_TLS_CERT_FILE: {
    description: 'PEM certificate of the HTTP API; plain HTTP without it',
    schema: z.string().optional(),
  },
  API_TLS_KEY_FILE: { description: 'PEM private key of that certificate', schema: z.string().optional() },
} satisfies Settings;

export type TokenServiceConfig = Config<typeof settings>;

/** What can be taken over while running. Of the rest, keys are derived at the start, or it is read there. */
export const live: Live<TokenServiceConfig> = {
  GATEWAY_RPC_SECRET: always,
  JOBS_RPC_SECRET: always,
  GATEWAY_PROOF_SECRET: always,
  DATABASE_URL: onlyPassword,
  REDIS_URL: onlyPassword,
  RETENTION_DATABASE_URL: (next, inUse) => next !== undefined && inUse !== undefined && onlyPassword(next, inUse),
};

/**
 * @param warn receives what works but should be changed
 * @throws ConfigError naming every setting that is missing or wrong
 */
export function tokenServiceConfig(
  env: NodeJS.ProcessEnv = process.env,
  warn?: (text: string) => void,
): TokenServiceConfig {
  const adopted = adoptRpcSecret(env, CREDENTIAL_NAMES);
  const config = loadConfig(settings, adopted.env);
  if (!config.RPC_TLS_CERT_FILE !== !config.RPC_TLS_KEY_FILE)
    throw new ConfigError(['RPC_TLS_CERT_FILE and RPC_TLS_KEY_FILE: set both, or neither']);
  if (!config.API_TLS_CERT_FILE !== !config.API_TLS_KEY_FILE)
    throw new ConfigError(['API_TLS_CERT_FILE and API_TLS_KEY_FILE: set both, or neither']);
  if (config.LEDGER_DIR !== undefined && config.LEDGER_KEY === undefined)
    throw new ConfigError(['LEDGER_KEY is required with LEDGER_DIR (openssl rand -hex 32)']);
  rejectSharedSecrets(config);
  for (const text of [...adopted.warnings, ...sharedSecrets(config, adopted.adopted)]) warn?.(text);
  return config;
}

/**
 * Checks that no two credentials share their current secret, so that each has one use. A former RPC_SECRET can be the
 * previous secret of several while services move to the new ones: @returns a warning for each such pair.
 */
function sharedSecrets(config: TokenServiceConfig, adopted: readonly CredentialName[]): string[] {
  const warnings: string[] = [];
  for (const [i, one] of CREDENTIAL_NAMES.entries()) {
    for (const other of CREDENTIAL_NAMES.slice(i + 1)) {
      if (adopted.includes(one) || adopted.includes(other)) continue;
      if (config[one][0] === config[other][0])
        throw new ConfigError([`${one} and ${other} begin with the same secret: each needs its own`]);
      if (config[one].some((secret) => config[other].includes(secret)))
        warnings.push(`${one} and ${other} both accept the same secret: remove it when no service uses it any more`);
    }
  }
  return warnings;
}

/**
 * Checks that no other setting contains a secret that only the token-service has, or shares with one service: a service
 * with USAGE_SECRET, for instance, must not be able to derive acknowledgement keys.
 * @throws ConfigError
 */
function rejectSharedSecrets(config: TokenServiceConfig): void {
  const { TOKEN_PEPPERS, EVENTS_SECRET, EVENTS_SIGNING_KEY, USAGE_SECRET } = config;
  const { AUDIT_SIGNING_KEY, RECEIPT_SIGNING_KEY, LEDGER_KEY } = config;
  const secretsOf: [name: string, secrets: readonly string[]][] = [
    ['TOKEN_PEPPERS', TOKEN_PEPPERS],
    ...CREDENTIAL_NAMES.map((name) => [name, config[name]] satisfies [string, string[]]),
    ['EVENTS_SECRET', [EVENTS_SECRET]],
    ['EVENTS_SIGNING_KEY', EVENTS_SIGNING_KEY],
    ['USAGE_SECRET', USAGE_SECRET],
    ['LEDGER_KEY', LEDGER_KEY ? [LEDGER_KEY] : []],
    ['AUDIT_SIGNING_KEY', AUDIT_SIGNING_KEY ? [signerOf(AUDIT_SIGNING_KEY)] : []],
    ['RECEIPT_SIGNING_KEY', RECEIPT_SIGNING_KEY ? [signerOf(RECEIPT_SIGNING_KEY)] : []],
  ];
  const isCredential = (name: string) => (CREDENTIAL_NAMES as readonly string[]).includes(name);
  for (const [i, [one, secrets]] of secretsOf.entries()) {
    for (const [other, others] of secretsOf.slice(i + 1)) {
      if (isCredential(one) && isCredential(other)) continue; // checked by sharedSecrets
      if (secrets.some((secret) => others.includes(secret)))
        throw new ConfigError([`${one} and ${other} hold the same secret: each needs its own`]);
    }
  }
}

/** Injection token of the configuration. */
export const CONFIG = Symbol('config');
/** Injection token of the logger. */
export const LOGGER = Symbol('logger');
/** Injection token of the clock. */
export const CLOCK = Symbol('clock');
