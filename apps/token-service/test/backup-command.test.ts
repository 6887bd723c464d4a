import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type TestDatabase, testDatabase } from '@latchkey/testing';
import { migratedDatabase } from './database.js';

const root = path.join(import.meta.dirname, '../../..');
let dir: string;
let database: TestDatabase;

beforeAll(async () => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-command-'));
  database = await migratedDatabase();
  await database.query(
    `INSERT INTO users (id, email, name, role, created_at) VALUES (gen_random_uuid(), 'a@b.example', 'A', 'member', now())`,
  );
  writeFileSync(path.join(dir, 'passphrase'), 'six random words make a passphrase\n', { mode: 0o600 });
  mkdirSync(path.join(dir, 'backups'));
});
afterAll(async () => {
  await database.close();
  rmSync(dir, { recursive: true });
});

/** The volumes of a new installation in containers. */
function newSecrets(name: string): string {
  const folder = path.join(dir, name);
  const program = path.join(root, 'infra/docker/make-secrets.mjs');
  execFileSync(process.execPath, [program], { env: { SECRETS_DIR: folder }, stdio: 'ignore' });
  return folder;
}

/** Runs the program of the containers, to whom `npm` and this shell are unknown. */
function run(url: string, secrets: string, ...args: string[]) {
  const program = path.join(root, 'packages/backup/dist/main.js');
  const env = {
    PATH: process.env['PATH'],
    DATABASE_URL: url,
    SECRETS_DIR: secrets,
    BACKUP_DIR: path.join(dir, 'backups'),
    BACKUP_RECIPIENTS: '',
  };
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    execFile(process.execPath, [program, ...args], { env }, (error, out, err) => {
      resolve({ code: Number(error?.code ?? 0), out, err });
    });
  });
}

const all = (folder: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((file) => statSync(path.join(folder, file)).isFile())
      .map((file) => [file, readFileSync(path.join(folder, file), 'utf8')]),
  );

test('an installation in containers is backed up and restored into another, which keeps its own database passwords', async () => {
  const before = newSecrets('before');
  const identity = path.join(dir, 'identity');
  const { out: recipient } = await run(database.url, before, 'backup', 'keygen', identity);
  expect(statSync(identity).mode & 0o777).toBe(0o600);
  const made = await run(database.url, before, 'backup', '--recipient', recipient.trim(), '--json');
  expect(made.code).toBe(0);
  const { file, manifest } = JSON.parse(made.out);
  expect(path.dirname(file)).toBe(path.join(dir, 'backups'));
  expect(made.out).not.toContain(all(before)['token-service/token_peppers']);
  const password = all(before)['token-service/admin_password']!;
  for (const text of [password, createHash('sha256').update(password).digest('hex')])
    expect(made.out).not.toContain(text);
  const names = manifest.secrets.map(({ name }: { name: string }) => name);
  expect(names).toEqual(expect.arrayContaining(['TOKEN_PEPPERS', 'AUDIT_SIGNING_KEY', 'JOBS_SEALING_KEY']));
  expect(names.filter((name: string) => /URL|PUBLIC/.test(name))).toEqual([]);
  const verified = await run(
    database.url,
    before,
    'backup',
    'verify',
    path.basename(file),
    '--identity-file',
    identity,
  );
  expect([verified.code, verified.out]).toEqual([0, expect.stringMatching(/1 rows|rows of .* verified/)]);

  await using target = await testDatabase();
  const after = newSecrets('after');
  const fresh = all(after);
  const restored = await run(target.url, after, 'restore', path.basename(file), '--identity-file', identity);
  expect([restored.err, restored.code]).toEqual([expect.stringContaining('docker compose up --wait'), 0]);
  expect(await target.query('SELECT email FROM users')).toEqual([{ email: 'a@b.example' }]);
  // Passwords of databases, and certificates between the services, are those of where it is restored.
  const isOfPlace = (name: string) => /^(?:migrate|postgres|redis)\/|_url$|\/(?:ca|ca_key|tls_\w+)$/.test(name);
  for (const [name, value] of Object.entries(all(after)))
    expect([name, value]).toEqual([name, (isOfPlace(name) ? fresh : all(before))[name]]);

  const again = await run(target.url, after, 'restore', path.basename(file), '--identity-file', identity);
  expect([again.code, again.err]).toEqual([
    1,
    expect.stringMatching(/restore failed: .* is not empty: it has the table/),
  ]);
}, 120_000);

test('each error names the option, setting or file, and nothing else is printed', async () => {
  const secrets = newSecrets('errors');
  const passphrase = ['--passphrase-file', path.join(dir, 'passphrase')];
  const cases: [string[], RegExp][] = [
    [['backup'], /^backup failed: nothing says how to encrypt the backup: give --recipient/],
    [['backup', '--passphrase-file', '/missing'], /--passphrase-file: \/missing cannot be read: ENOENT/],
    [['backup', '--recipient', 'age1x', ...passphrase], /to recipients or with a passphrase, not both/],
    [['backup', 'verify', 'none.age', ...passphrase], /backups\/none\.age cannot be read: ENOENT/],
    [['backup', 'verify', '../passphrase', ...passphrase], /is not a backup, or its first bytes are damaged/],
    [['restore', 'none.age'], /nothing says how to decrypt the backup: give --identity-file/],
  ];
  const runs = cases.map(async ([args, message]) => {
    const { code, err, out } = await run(database.url, secrets, ...args);
    expect([args, code, out]).toEqual([args, 1, '']);
    expect(err).toMatch(message);
  });
  await Promise.all(runs);
  rmSync(path.join(secrets, 'token-service/token_peppers'));
  expect((await run(database.url, secrets, 'backup', ...passphrase)).err).toMatch(/no token-service\/token_peppers/);
  expect((await run('', secrets, 'backup', ...passphrase)).err).toMatch(/DATABASE_URL is required/);
  expect(await run(database.url, secrets, 'restore')).toMatchObject({ code: 2, out: '' });
}, 120_000);
