import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { signerOf } from '@latchkey/contracts';
import {
  adoptRpcSecret,
  type Config,
  ConfigError,
  type CredentialName,
  commonSettings,
  credentialSettings,
  encryptionSettings,
  loadConfig,
  rpcSecretSetting,
  type Settings,
  settingSchema,
} from '@latchkey/runtime';
import { DEFAULT_PREFIX, isPrefix } from '@latchkey/token-format';
import { z } from 'zod';

const CREDENTIAL_NAMES = ['GATEWAY_RPC_SECRET', 'JOBS_RPC_SECRET', 'GATEWAY_PROOF_SECRET'] as const;
const ownScopesFile = path.join(import.meta.dirname, '../../../infra/scopes.yaml');

const peppers = z
  .string('is required')
  .transform((text) => text.split(',').map((part) => part.trim()))
  .refine((list) => list.every((pepper) => pepper.length >= 32), 'each pepper must have at least 32 characters')
  .refine((list) => new Set(list).size === list.length, 'names a pepper twice');

const signingKeys = z
  .string('is required')
  .transform((text) => text.split(',').map((part) => part.trim()))
  .refine((list) => list.every((key) => key.length >= 32), 'each key must have at least 32 characters')
  .refine((list) => list.length <= 2, 'has at most two keys: the current one and the next')
  .refine((list) => new Set(list).size === list.length, 'names a key twice');

const ed25519Key = z
  .string()
  .transform((pem, context): KeyObject => {
    try {
      const key = createPrivateKey(pem.includes('\\n') ? pem.replaceAll('\\n', '\n') : pem);
      if (key.asymmetricKeyType === 'ed25519') return key;
    } catch {
      // said below; the text itself must not be repeated
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
    // said below
  }
  context.addIssue('must be Ed25519 public keys in PEM, one after the other');
  return z.NEVER;
});
const isHttpsOrHere = (address: string): boolean =>
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
  API_PORT: { description: 'Port of the HTTP door', default: '8090', schema: settingSchema.port },
  OPS_PORT: { description: 'Port of /healthz, /readyz and /metrics', default: '8082', schema: settingSchema.port },
  RPC_PORT: { description: 'Port of the gRPC door', default: '50051', schema: settingSchema.port },
  PUBLIC_URL: {
    description: 'The address that people use; links, cookies and origin checks come from it',
    default: 'http://127.0.0.1:8080',
    schema: settingSchema.url('http:', 'https:'),
  },
  TOKEN_PREFIX: {
    description: 'What every secret begins with: 1 to 16 lower-case letters and digits, a letter first',
    default: DEFAULT_PREFIX,
    schema: z.string().refine(isPrefix, 'must be 1 to 16 lower-case letters and digits, beginning with a letter'),
  },
  TOKEN_PEPPERS: {
    description:
      'Comma-separated, each at least 32 characters: the current pepper, then retired ones that still verify',
    secret: true,
    schema: peppers,
  },
  ...credentialSettings,
  ...rpcSecretSetting,
  JOBS_SEALING_PUBLIC_KEY: encryptionSettings.JOBS_SEALING_PUBLIC_KEY,
  EVENTS_SECRET: {
    description: "Verifiers' acknowledgement keys are derived from it, at least 32 characters; shared with nobody",
    secret: true,
    schema: settingSchema.secret,
  },
  EVENTS_SIGNING_KEY: {
    description:
      'Comma-separated, each at least 32 characters: invalidations are signed by a key derived from the first (Ed25519); verifiers learn of the second as the next. Shared with nobody',
    secret: true,
    schema: signingKeys,
  },
  USAGE_SECRET: {
    description: "Verifiers' usage keys are derived from it, at least 32 characters; shared with jobs alone",
    secret: true,
    schema: settingSchema.secret,
  },
  AUDIT_SIGNING_KEY: {
    description: 'Ed25519 private key (PEM) that signs checkpoints of the audit chain; without one none are signed',
    secret: true,
    schema: ed25519Key,
  },
  AUDIT_RETIRED_KEYS: {
    description: 'Public keys (PEM, one after the other) of earlier signing keys, whose checkpoints are still believed',
    default: '',
    schema: publicKeys,
  },
  AUDIT_CHECKPOINT_SECONDS: {
    description: 'A checkpoint of the audit chain is signed at the latest so long after the one before, in seconds',
    default: '5',
    schema: settingSchema.integer(1, 86_400),
  },
  AUDIT_CHECKPOINT_EVENTS: {
    description: 'And at the latest after so many events',
    default: '1000',
    schema: settingSchema.integer(1, 1_000_000),
  },
  AUDIT_CHECKPOINT_FILE: {
    description:
      'File that every checkpoint is appended to, best on another machine; `/v1/audit/verify` then finds a tail cut with its checkpoints',
    schema: z.string().optional(),
  },
  AUDIT_RETENTION_MONTHS: {
    description:
      'Whole months that audit events and receipts are kept, at least 2; 0: for ever. Needs RETENTION_DATABASE_URL',
    default: '0',
    schema: settingSchema.integer(0, 1_200).refine((n) => n === 0 || n >= 2, 'must be 0 or at least 2'),
  },
  RETENTION_DATABASE_URL: {
    description: 'PostgreSQL, as the role latchkey_retention, which alone may remove audit events and receipts',
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
      'Public keys (PEM, one after the other) that signed receipts before, published at `/v1/receipts/keys` beside the present one',
    default: '',
    schema: publicKeys,
  },
  SCOPES_FILE: {
    description:
      "YAML file that declares the guarded APIs' scopes; when not set, infra/scopes.yaml beside the program if it is there",
    schema: z
      .string()
      .optional()
      .transform((file) => file ?? (existsSync(ownScopesFile) ? ownScopesFile : undefined)),
  },
  LEASE_MS: {
    description: 'How long a verifier may answer from memory without renewing, in milliseconds',
    default: '10000',
    schema: settingSchema.integer(500, 600_000),
  },
  PROTOCOL_MIN: {
    description:
      'Verifiers of an earlier version of the revocation protocol get no lease: 2 serves those of version 0.1, 3 does not',
    default: '2',
    schema: settingSchema.integer(2, 3),
  },
  ADMIN_EMAIL: {
    description: 'E-mail address of the first administrator, made at the first start',
    schema: z.email('must be an e-mail address').optional(),
  },
  ADMIN_PASSWORD: {
    description: 'Password of the first administrator, at least 12 characters',
    secret: true,
    schema: z.string().min(12, 'must have at least 12 characters').max(200).optional(),
  },
  OIDC_ISSUER: {
    description: 'Another sign-in service (OpenID Connect): its issuer address; plain http only on this machine',
    schema: settingSchema
      .url('http:', 'https:')
      .refine(isHttpsOrHere, 'must be an https address, or http on this machine')
      .optional(),
  },
  OIDC_CLIENT_ID: {
    description: 'What the other sign-in service knows Latchkey by',
    schema: z.string().min(1).optional(),
  },
  OIDC_CLIENT_SECRET: {
    description: 'By which Latchkey shows itself to the other sign-in service',
    secret: true,
    schema: z.string().min(1).optional(),
  },
  OIDC_NAME: {
    description: 'What the sign-in page calls the other sign-in service',
    default: 'single sign-on',
    schema: z.string().min(1).max(100),
  },
  OIDC_CREATE_USERS: {
    description: 'Whether somebody whom the other sign-in service vouches for becomes a member here: true or false',
    default: 'false',
    schema: settingSchema.boolean,
  },
  RPC_TLS_CERT_FILE: {
    description: 'PEM certificate of the gRPC door; plain text without it',
    schema: z.string().optional(),
  },
  RPC_TLS_KEY_FILE: { description: 'PEM private key of that certificate', schema: z.string().optional() },
} satisfies Settings;

export type TokenServiceConfig = Config<typeof settings>;

/**
 * @param warn is told what should be changed although it works
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
  rejectSharedSecrets(config);
  for (const text of [...adopted.warnings, ...sharedSecrets(config, adopted.adopted)]) warn?.(text);
  return config;
}

/**
 * Each credential opens one thing only while no two hold the same secret. A former RPC_SECRET may stand in several as
 * a previous one, while services are moved to the new ones.
 */
function sharedSecrets(config: TokenServiceConfig, adopted: readonly CredentialName[]): string[] {
  const warnings: string[] = [];
  for (const [i, one] of CREDENTIAL_NAMES.entries()) {
    for (const other of CREDENTIAL_NAMES.slice(i + 1)) {
      if (adopted.includes(one) || adopted.includes(other)) continue;
      if (config[one][0] === config[other][0])
        throw new ConfigError([`${one} and ${other} begin with the same secret: each needs one of its own`]);
      if (config[one].some((secret) => config[other].includes(secret)))
        warnings.push(
          `${one} and ${other} both accept the same secret: take it out when no service presents it any more`,
        );
    }
  }
  return warnings;
}

/**
 * What the token-service keeps to itself, or shares with one service alone, is no secret of anybody else's: whoever holds
 * USAGE_SECRET, say, must not be able to make acknowledgements.
 * @throws ConfigError
 */
function rejectSharedSecrets(config: TokenServiceConfig): void {
  const { TOKEN_PEPPERS, EVENTS_SECRET, EVENTS_SIGNING_KEY, USAGE_SECRET } = config;
  const { AUDIT_SIGNING_KEY, RECEIPT_SIGNING_KEY } = config;
  const held: [name: string, secrets: readonly string[]][] = [
    ['TOKEN_PEPPERS', TOKEN_PEPPERS],
    ...CREDENTIAL_NAMES.map((name) => [name, config[name]] satisfies [string, string[]]),
    ['EVENTS_SECRET', [EVENTS_SECRET]],
    ['EVENTS_SIGNING_KEY', EVENTS_SIGNING_KEY],
    ['USAGE_SECRET', [USAGE_SECRET]],
    ['AUDIT_SIGNING_KEY', AUDIT_SIGNING_KEY ? [signerOf(AUDIT_SIGNING_KEY)] : []],
    ['RECEIPT_SIGNING_KEY', RECEIPT_SIGNING_KEY ? [signerOf(RECEIPT_SIGNING_KEY)] : []],
  ];
  const isCredential = (name: string) => (CREDENTIAL_NAMES as readonly string[]).includes(name);
  for (const [i, [one, secrets]] of held.entries()) {
    for (const [other, others] of held.slice(i + 1)) {
      if (isCredential(one) && isCredential(other)) continue; // sharedSecrets looks at these
      if (secrets.some((secret) => others.includes(secret)))
        throw new ConfigError([`${one} and ${other} hold the same secret: each needs one of its own`]);
    }
  }
}

/** By this the parts of the app are handed their configuration. */
export const CONFIG = Symbol('config');
/** By this they are handed the service's logger. */
export const LOGGER = Symbol('logger');
/** By this they are handed the clock. */
export const CLOCK = Symbol('clock');
