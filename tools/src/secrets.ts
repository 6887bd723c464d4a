import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type CredentialName, decryptionKey } from '@latchkey/runtime';

/** What the services share or keep to themselves; each goes only to those that need it. */
export interface Secrets {
  tokenPeppers: string;
  /** By which services know each other; see `credentials` of a service in environment.ts. */
  credentials: Record<CredentialName, string>;
  jobsSealingKey: string;
  /** Public half of the first of `jobsSealingKey`. */
  jobsSealingPublicKey: string;
  eventsSecret: string;
  eventsSigningKey: string;
  usageSecret: string;
  auditSigningKey: string;
  receiptSigningKey: string;
  servicePassword: string;
  jobsPassword: string;
  retentionPassword: string;
  boardPassword: string;
  adminPassword: string;
}

/**
 * The secrets of one home: those given in the environment, else those of an earlier start, else new ones. All but the
 * given ones are kept in files that only this user may read; the administrator's password is kept either way, because
 * ready.json tells it at every start.
 *
 * @param dir folder of the files
 * @param env TOKEN_PEPPERS, GATEWAY_RPC_SECRET, JOBS_RPC_SECRET, GATEWAY_PROOF_SECRET, JOBS_SEALING_KEY,
 *   EVENTS_SECRET, EVENTS_SIGNING_KEY, USAGE_SECRET, AUDIT_SIGNING_KEY, RECEIPT_SIGNING_KEY, BOARD_PASSWORD are read
 * @param adminPassword the one given for the first administrator
 */
export function readOrMakeSecrets(dir: string, env: NodeJS.ProcessEnv, adminPassword: string | null): Secrets {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const kept = (name: string, make: () => string) => {
    const file = path.join(dir, name);
    if (existsSync(file)) return readFileSync(file, 'utf8');
    const made = make();
    writePrivate(file, made);
    return made;
  };
  const random = () => randomBytes(32).toString('base64url');
  const signingKey = () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  };
  // One secret for all services, up to version 0.1.
  rmSync(path.join(dir, 'rpc-secret'), { force: true });
  const jobsSealingKey = env['JOBS_SEALING_KEY'] || kept('jobs-sealing-key', random);
  return {
    tokenPeppers: env['TOKEN_PEPPERS'] || kept('token-peppers', random),
    credentials: {
      GATEWAY_RPC_SECRET: env['GATEWAY_RPC_SECRET'] || kept('gateway-rpc-secret', random),
      JOBS_RPC_SECRET: env['JOBS_RPC_SECRET'] || kept('jobs-rpc-secret', random),
      GATEWAY_PROOF_SECRET: env['GATEWAY_PROOF_SECRET'] || kept('gateway-proof-secret', random),
    },
    jobsSealingKey,
    jobsSealingPublicKey: decryptionKey(firstOf(jobsSealingKey)).text,
    eventsSecret: env['EVENTS_SECRET'] || kept('events-secret', random),
    eventsSigningKey: env['EVENTS_SIGNING_KEY'] || kept('events-signing-key', random),
    usageSecret: env['USAGE_SECRET'] || kept('usage-secret', random),
    auditSigningKey: env['AUDIT_SIGNING_KEY'] || kept('audit-signing-key.pem', signingKey),
    receiptSigningKey: env['RECEIPT_SIGNING_KEY'] || kept('receipt-signing-key.pem', signingKey),
    servicePassword: kept('database-password-service', random),
    jobsPassword: kept('database-password-jobs', random),
    retentionPassword: kept('database-password-retention', random),
    boardPassword: env['BOARD_PASSWORD'] || kept('board-password', random),
    adminPassword: kept('admin-password', () => adminPassword ?? randomBytes(15).toString('base64url')),
  };
}

/** The first of a comma-separated list, as the services read it. */
const firstOf = (list: string): string => (list.split(',')[0] ?? '').trim();

/** Writes a file that only this user may read, whole or not at all. */
export function writePrivate(file: string, text: string): void {
  const half = `${file}.new`;
  writeFileSync(half, text, { mode: 0o600 });
  renameSync(half, file);
}
