import {
  adoptRpcSecret,
  always,
  type Config,
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
import { z } from 'zod';

/** The version of this service. */
export const VERSION = versionIn(new URL('../package.json', import.meta.url));

const webhookSecret = z
  .string()
  .regex(/^whsec_[A-Za-z0-9+/]{32,}={0,2}$/, 'must be "whsec_" and at least 24 random bytes in base64')
  .optional();
const webhookUrl = settingSchema.url('https:', 'http:').optional();

export const settings = {
  ...commonSettings,
  DATABASE_URL: {
    description: 'PostgreSQL, as the role `latchkey_jobs`',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:'),
  },
  REDIS_URL: {
    description: "Redis, for BullMQ's queues and the usage stream",
    secret: true,
    schema: settingSchema.url('redis:', 'rediss:'),
  },
  RPC_ADDRESS: {
    description:
      "`host:port` of the token-service's gRPC API, or several separated by commas: calls are spread over all of them, and over all addresses of a name",
    default: '127.0.0.1:50051',
    schema: settingSchema.rpcAddress,
  },
  RPC_CA_FILE: {
    description: "PEM file of the CA that signed the gRPC endpoint's certificate; plain text without one",
    schema: z.string().optional(),
  },
  JOBS_RPC_SECRET: credentialSettings.JOBS_RPC_SECRET,
  ...rpcSecretSetting,
  JOBS_SEALING_KEY: encryptionSettings.JOBS_SEALING_KEY,
  USAGE_SECRET: {
    description:
      'Comma-separated, each at least 32 characters: usage that was signed by keys derived from any of them is counted; shared with the token-service only',
    secret: true,
    schema: settingSchema.secretList,
  },
  OPS_PORT: {
    description: 'Port of /healthz, /readyz, /metrics and the board at /queues/',
    default: '8083',
    schema: settingSchema.port,
  },
  BOARD_PASSWORD: {
    description: "Password of the queues' board (any user name); without one the board is off",
    secret: true,
    schema: z.string().min(16, 'must have at least 16 characters').max(200).optional(),
  },
  PUBLIC_URL: {
    description: 'Public URL; links in notices begin with it',
    default: 'http://127.0.0.1:8080',
    schema: settingSchema.url('http:', 'https:'),
  },
  SMTP_URL: {
    description: 'Mail server, `smtp://user:password@host:587` or `smtps://…`; without one no email is sent',
    secret: true,
    schema: settingSchema.url('smtp:', 'smtps:').optional(),
  },
  MAIL_FROM: {
    description: 'Sender of emails',
    default: 'Latchkey <latchkey@localhost>',
    schema: z
      .string()
      .min(3)
      .max(320)
      .regex(/^[^\r\n]+$/, 'must be one line'),
  },
  NOTICE_WEBHOOK_URL: { description: 'URL that notices are posted to, signed (Standard Webhooks)', schema: webhookUrl },
  NOTICE_WEBHOOK_SECRET: { description: 'Signs webhooks of notices', secret: true, schema: webhookSecret },
  SIEM_WEBHOOK_URL: { description: 'URL that sealed audit events are posted to in order, signed', schema: webhookUrl },
  SIEM_WEBHOOK_SECRET: { description: 'Signs webhooks to the SIEM', secret: true, schema: webhookSecret },
  SIEM_ATTEMPTS_MAX: {
    description: 'Delivery attempts for one batch of audit events before it becomes a dead letter',
    default: '20',
    schema: settingSchema.integer(1, 1_000),
  },
  CANARY_TOKEN: {
    description:
      'A token with the scope `tokens:write`; with it, the canary issues, uses, revokes and retries a token every minute, to check that revocations take effect',
    secret: true,
    schema: z.string().max(200).optional(),
  },
  CANARY_API_URL: {
    description: "URL of the token-service's HTTP API, for the canary",
    default: 'http://127.0.0.1:8090',
    schema: settingSchema.url('http:', 'https:'),
  },
  CANARY_DOORS: {
    description:
      'Comma-separated URLs, one for each gateway, that return 2xx for any valid token: `http://gateway-1:8081/forward-auth,…`',
    default: '',
    schema: settingSchema.list.refine(
      (list) => list.every((url) => URL.canParse(url) && /^https?:$/.test(new URL(url).protocol)),
      'must be URLs separated by commas',
    ),
  },
} satisfies Settings;

export type JobsConfig = Config<typeof settings>;

/** What can be taken over while running. */
export const live: Live<JobsConfig> = {
  JOBS_RPC_SECRET: always,
  DATABASE_URL: onlyPassword,
  REDIS_URL: onlyPassword,
};

/**
 * @param warn called with what works but should be changed
 * @throws ConfigError naming every setting that is missing or wrong
 */
export function jobsConfig(env: NodeJS.ProcessEnv = process.env, warn?: (text: string) => void): JobsConfig {
  const adopted = adoptRpcSecret(env, ['JOBS_RPC_SECRET']);
  const config = loadConfig(settings, adopted.env);
  for (const text of adopted.warnings) warn?.(text);
  if (config.SMTP_URL && !config.JOBS_SEALING_KEY)
    warn?.('SMTP_URL is set but JOBS_SEALING_KEY is not: no password emails are sent, only notices');
  return config;
}

/** Checks that involve several settings. @throws Error naming the settings */
export function checkTogether(config: JobsConfig): JobsConfig {
  for (const name of ['NOTICE_WEBHOOK', 'SIEM_WEBHOOK'] as const) {
    if (config[`${name}_URL`] && !config[`${name}_SECRET`])
      throw new Error(`${name}_SECRET is missing: ${name}_URL is set, and nothing is posted unsigned`);
  }
  if (config.CANARY_TOKEN && config.CANARY_DOORS.length === 0)
    throw new Error('CANARY_DOORS is missing: CANARY_TOKEN is set, and the canary needs the URLs of the gateways');
  return config;
}
