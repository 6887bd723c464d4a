// Makes the secrets that are missing, each into the volume of the one service that reads it, and nothing else.
// A value given in the environment (TOKEN_PEPPERS, GATEWAY_RPC_SECRET, JOBS_RPC_SECRET, GATEWAY_PROOF_SECRET,
// JOBS_SEALING_KEY, EVENTS_SECRET, EVENTS_SIGNING_KEY, USAGE_SECRET, LEDGER_KEY, AUDIT_SIGNING_KEY,
// RECEIPT_SIGNING_KEY, AUDIT_RETIRED_KEYS, RECEIPT_RETIRED_KEYS, ADMIN_PASSWORD) is used instead of a new one. Safe to run at every start: existing secrets stay as they are.
// DATABASE_URL (as the owner of the schema) and REDIS_URL are of your own servers: the addresses for the services' roles are
// derived from the first. Without them those of the bundled servers are written.
//   make-secrets.mjs password      shows the first administrator's password and makes nothing
//   make-secrets.mjs rotate NAME   does the next step of replacing a secret: rotate-secret.mjs
import { generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { decryptionKey } from '@latchkey/runtime';
import { makeAuthority, makeServerCertificate } from './certificates.mjs';

const root = process.env.SECRETS_DIR ?? '/secrets';
const random = () => randomBytes(32).toString('base64url');

/** What was written. */
const changed = [];

/** The value of one secret: from the environment, else from where it was written before, else new. */
function value(name, storedIn, make) {
  const given = process.env[name];
  const file = path.join(root, storedIn);
  if (given) return given;
  return existsSync(file) ? readFileSync(file, 'utf8') : make();
}

function write(file, text, mode = 0o400) {
  const target = path.join(root, file);
  mkdirSync(path.dirname(target), { recursive: true });
  if (existsSync(target) && readFileSync(target, 'utf8') === text) return;
  writeFileSync(`${target}.new`, text, { mode });
  renameSync(`${target}.new`, target);
  changed.push(file);
}

if (process.argv[2] === 'password') {
  const file = path.join(root, 'administrator/password');
  if (!existsSync(file)) throw new Error('there is no password yet: run docker compose up --wait first');
  console.log(readFileSync(file, 'utf8'));
  process.exit();
}

if (process.argv[2] === 'rotate') {
  const { rotate } = await import('./rotate-secret.mjs');
  rotate(process.argv.slice(3));
  process.exit();
}

/**
 * TLS of the token-service: an authority whose key stays in a volume that no service mounts, and a certificate that is
 * made again a year before it expires. The token-service reads it when it starts.
 */
function tlsPair() {
  const YEAR_MS = 365 * 86_400_000;
  const stored = (file) =>
    existsSync(path.join(root, file)) ? readFileSync(path.join(root, file), 'utf8') : undefined;
  const lasts = (text) => text !== undefined && Date.parse(new X509Certificate(text).validTo) - Date.now() > YEAR_MS;
  const subject = 'Latchkey services';
  const authority = { subject, certificate: stored('administrator/ca'), key: stored('administrator/ca_key') };
  if (!lasts(authority.certificate) || !authority.key) Object.assign(authority, makeAuthority(subject));
  const pair = { certificate: stored('token-service/tls_certificate'), key: stored('token-service/tls_key') };
  const isOfAuthority = () =>
    new X509Certificate(pair.certificate).verify(new X509Certificate(authority.certificate).publicKey);
  if (!pair.key || !lasts(pair.certificate) || !isOfAuthority())
    Object.assign(pair, makeServerCertificate(authority, 'token-service', ['token-service', 'localhost']));
  return { authority, pair };
}

const firstTime = !existsSync(path.join(root, 'administrator/password'));
const peppers = value('TOKEN_PEPPERS', 'token-service/token_peppers', random);
const gatewayRpc = value('GATEWAY_RPC_SECRET', 'gateway/gateway_rpc_secret', random);
const jobsRpc = value('JOBS_RPC_SECRET', 'jobs/jobs_rpc_secret', random);
const gatewayProof = value('GATEWAY_PROOF_SECRET', 'gateway/gateway_proof_secret', random);
const jobsSealing = value('JOBS_SEALING_KEY', 'jobs/jobs_sealing_key', random);
// Version 0.1 gave it to jobs as well: a secret that jobs has had derives no more keys.
const knownToJobs = path.join(root, 'jobs/events_secret');
const events = existsSync(knownToJobs)
  ? process.env.EVENTS_SECRET || random()
  : value('EVENTS_SECRET', 'token-service/events_secret', random);
const eventsSigning = value('EVENTS_SIGNING_KEY', 'token-service/events_signing_key', random);
const ledger = value('LEDGER_KEY', 'token-service/ledger_key', random);
const usage = value('USAGE_SECRET', 'token-service/usage_secret', random);
const ed25519 = () => generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
const auditSigning = value('AUDIT_SIGNING_KEY', 'token-service/audit_signing_key', ed25519);
const receiptSigning = value('RECEIPT_SIGNING_KEY', 'token-service/receipt_signing_key', ed25519);
const auditRetired = value('AUDIT_RETIRED_KEYS', 'token-service/audit_retired_keys', () => '');
const receiptRetired = value('RECEIPT_RETIRED_KEYS', 'token-service/receipt_retired_keys', () => '');
const administrator = value('ADMIN_PASSWORD', 'administrator/password', () => randomBytes(15).toString('base64url'));
const redis = value('', 'redis/password', random);
const database = Object.fromEntries(
  ['postgres', 'service', 'jobs', 'retention'].map((role) => [role, value('', `migrate/password_${role}`, random)]),
);
const ownerUrl = process.env.DATABASE_URL || `postgres://postgres:${database.postgres}@postgres:5432/latchkey`;
/** The same database, as a role that the migrations make. */
function roleUrl(role, user) {
  const url = new URL(ownerUrl);
  url.username = user;
  url.password = database[role];
  return url.href;
}
const redisUrl = process.env.REDIS_URL || `redis://:${redis}@redis:6379`;

for (const service of ['token-service', 'gateway', 'jobs']) {
  write(`${service}/redis_url`, redisUrl);
  // One secret for all, up to version 0.1.
  rmSync(path.join(root, service, 'rpc_secret'), { force: true });
}
for (const service of ['token-service', 'gateway']) {
  write(`${service}/gateway_rpc_secret`, gatewayRpc);
  write(`${service}/gateway_proof_secret`, gatewayProof);
}
for (const service of ['token-service', 'jobs']) {
  write(`${service}/jobs_rpc_secret`, jobsRpc);
  write(`${service}/usage_secret`, usage);
}
write('jobs/jobs_sealing_key', jobsSealing);
write('token-service/jobs_sealing_public_key', decryptionKey(jobsSealing.split(',')[0].trim()).text);
write('token-service/events_secret', events);
rmSync(knownToJobs, { force: true });
write('token-service/events_signing_key', eventsSigning);
write('token-service/token_peppers', peppers);
write('token-service/ledger_key', ledger);
write('token-service/audit_signing_key', auditSigning);
write('token-service/receipt_signing_key', receiptSigning);
write('token-service/audit_retired_keys', auditRetired);
write('token-service/receipt_retired_keys', receiptRetired);
write('token-service/admin_password', administrator);
write('token-service/database_url', roleUrl('service', 'latchkey_service'));
write('jobs/database_url', roleUrl('jobs', 'latchkey_jobs'));
write('token-service/retention_database_url', roleUrl('retention', 'latchkey_retention'));
write('migrate/database_url', ownerUrl);
for (const [role, password] of Object.entries(database)) write(`migrate/password_${role}`, password);
// PostgreSQL and Redis read theirs as users of their own; no other service mounts these two volumes.
write('postgres/password', database.postgres, 0o444);
write('redis/password', redis, 0o444);
write(
  'redis/redis.conf',
  `requirepass ${redis}\nappendonly yes\nappendfsync everysec\ndir /data\nmaxmemory-policy noeviction\n`,
  0o444,
);
write('administrator/password', administrator);
const { authority, pair } = tlsPair();
write('administrator/ca', authority.certificate);
write('administrator/ca_key', authority.key);
for (const service of ['gateway', 'jobs']) write(`${service}/ca`, authority.certificate);
write('token-service/tls_certificate', pair.certificate);
write('token-service/tls_key', pair.key);

if (firstTime) {
  console.log(`first administrator: ${process.env.ADMIN_EMAIL ?? 'admin@latchkey.local'}`);
  console.log(`password: ${process.env.ADMIN_PASSWORD ? '(the one you gave)' : administrator}`);
  console.log('to see it again: docker compose run --rm secrets password');
} else console.log(changed.length > 0 ? `changed: ${changed.join(', ')}` : 'all secrets exist; nothing changed');
