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
  const jobsSealingKey = env['JOBS_SEALING_KEY'] || stored('jobs-sealing-key', random);
  return {
    tokenPeppers: env['TOKEN_PEPPERS'] || stored('token-peppers', random),
    credentials: {
      GATEWAY_RPC_SECRET: env['GATEWAY_RPC_SECRET'] || stored('gateway-rpc-secret', random),
      JOBS_RPC_SECRET: env['JOBS_RPC_SECRET'] || stored('jobs-rpc-secret', random),
      GATEWAY_PROOF_SECRET: env['GATEWAY_PROOF_SECRET'] || stored('gateway-proof-secret', random),
    },
    jobsSealingKey,
    jobsSealingPublicKey: decryptionKey(firstOf(jobsSealingKey)).text,
    eventsSecret: env['EVENTS_SECRET'] || stored('events-secret', random),
    eventsSigningKey: env['EVENTS_SIGNING_KEY'] || stored('events-signing-key', random),
    usageSecret: env['USAGE_SECRET'] || stored('usage-secret', random),
    ledgerKey: env['LEDGER_KEY'] || stored('ledger-key', random),
    auditSigningKey: env['AUDIT_SIGNING_KEY'] || stored('audit-signing-key.pem', signingKey),
    receiptSigningKey: env['RECEIPT_SIGNING_KEY'] || stored('receipt-signing-key.pem', signingKey),
    servicePassword: stored('database-password-service', random),
    jobsPassword: stored('database-password-jobs', random),
    retentionPassword: stored('database-password-retention', random),
    boardPassword: env['BOARD_PASSWORD'] || stored('board-password', random),
    adminPassword: stored('admin-password', () => adminPassword ?? randomBytes(15).toString('base64url')),
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
