import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type CredentialName, decryptionKey } from '@latchkey/runtime';

/** The secrets of the services; each is passed only to those that need it. */
export interface Secrets {
  tokenPeppers: string;
  /** Credentials between services; see environment.ts. */
  credentials: Record<CredentialName, string>;
  jobsSealingKey: string;
  /** Public half of the first of `jobsSealingKey`. */
  jobsSealingPublicKey: string;
  eventsSecret: string;
  eventsSigningKey: string;
  usageSecret: string;
  ledgerKey: string;
  auditSigningKey: string;
  receiptSigningKey: string;
  servicePassword: string;
  jobsPassword: string;
  retentionPassword: string;
  boardPassword: string;
  adminPassword: string;
}

/** The files of the secrets that a backup contains; passwords of databases are made anew where it is restored. */
export const secretFiles = {
  TOKEN_PEPPERS: 'token-peppers',
  GATEWAY_RPC_SECRET: 'gateway-rpc-secret',
  JOBS_RPC_SECRET: 'jobs-rpc-secret',
  GATEWAY_PROOF_SECRET: 'gateway-proof-secret',
  JOBS_SEALING_KEY: 'jobs-sealing-key',
  EVENTS_SECRET: 'events-secret',
  EVENTS_SIGNING_KEY: 'events-signing-key',
  USAGE_SECRET: 'usage-secret',
  LEDGER_KEY: 'ledger-key',
  AUDIT_SIGNING_KEY: 'audit-signing-key.pem',
  RECEIPT_SIGNING_KEY: 'receipt-signing-key.pem',
  BOARD_PASSWORD: 'board-password',
  ADMIN_PASSWORD: 'admin-password',
} as const;
export type SecretName = keyof typeof secretFiles;

/**
 * The secrets of one home: from the environment, else from an earlier start, else new. All but those from the environment
 * are stored in files that only this user can read; the administrator's password is always stored, because ready.json
 * contains it at every start.
 *
 * @param dir folder of the files
 * @param env TOKEN_PEPPERS, GATEWAY_RPC_SECRET, JOBS_RPC_SECRET, GATEWAY_PROOF_SECRET, JOBS_SEALING_KEY,
 *   EVENTS_SECRET, EVENTS_SIGNING_KEY, USAGE_SECRET, LEDGER_KEY, AUDIT_SIGNING_KEY, RECEIPT_SIGNING_KEY, BOARD_PASSWORD
 *   are read
 * @param adminPassword the configured one of the first administrator
 */
export function readOrCreateSecrets(dir: string, env: NodeJS.ProcessEnv, adminPassword: string | null): Secrets {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const fromEnvironment = (name: SecretName, create: () => string) => env[name] || stored(secretFiles[name], create);
  const stored = (name: string, create: () => string) => {
    const file = path.join(dir, name);
    if (existsSync(file)) return readFileSync(file, 'utf8');
    const created = create();
    writePrivate(file, created);
    return created;
  };
  const random = () => randomBytes(32).toString('base64url');
  const signingKey = () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  };
  // Up to version 0.1: one secret for all services.
  rmSync(path.join(dir, 'rpc-secret'), { force: true });
  const jobsSealingKey = fromEnvironment('JOBS_SEALING_KEY', random);
  return {
    tokenPeppers: fromEnvironment('TOKEN_PEPPERS', random),
    credentials: {
      GATEWAY_RPC_SECRET: fromEnvironment('GATEWAY_RPC_SECRET', random),
      JOBS_RPC_SECRET: fromEnvironment('JOBS_RPC_SECRET', random),
      GATEWAY_PROOF_SECRET: fromEnvironment('GATEWAY_PROOF_SECRET', random),
    },
    jobsSealingKey,
    jobsSealingPublicKey: decryptionKey(firstOf(jobsSealingKey)).text,
    eventsSecret: fromEnvironment('EVENTS_SECRET', random),
    eventsSigningKey: fromEnvironment('EVENTS_SIGNING_KEY', random),
    usageSecret: fromEnvironment('USAGE_SECRET', random),
    ledgerKey: fromEnvironment('LEDGER_KEY', random),
    auditSigningKey: fromEnvironment('AUDIT_SIGNING_KEY', signingKey),
    receiptSigningKey: fromEnvironment('RECEIPT_SIGNING_KEY', signingKey),
    servicePassword: stored('database-password-service', random),
    jobsPassword: stored('database-password-jobs', random),
    retentionPassword: stored('database-password-retention', random),
    boardPassword: fromEnvironment('BOARD_PASSWORD', random),
    adminPassword: stored(secretFiles.ADMIN_PASSWORD, () => adminPassword ?? randomBytes(15).toString('base64url')),
  };
}

/** The first item of a comma-separated list. */
const firstOf = (list: string): string => (list.split(',')[0] ?? '').trim();

/** Writes a file atomically that only this user can read. */
export function writePrivate(file: string, text: string): void {
  const half = `${file}.new`;
  writeFileSync(half, text, { mode: 0o600 });
  renameSync(half, file);
}
