import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { backup, migrateBy, restore } from '@latchkey/backup';
import { claimFolder, startPostgres } from '@latchkey/local-stack';
import { home } from '../../src/backup.js';
import { readOrCreateSecrets } from '../../src/secrets.js';
import { launch } from './launcher.js';

const lock = { passphrase: 'six random words make a passphrase' };
const pg = createRequire(import.meta.url).resolve('pg');

/** Makes what a backup reads, in the place of the token-service's migrations. */
const MIGRATE = `
import pg from ${JSON.stringify(pg)};
const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
if (process.argv.includes('--only')) await client.query(\`
  CREATE TABLE migrations (id serial PRIMARY KEY, name text NOT NULL);
  INSERT INTO migrations (name) VALUES ('First1');
  CREATE TABLE invalidation_log (log uuid NOT NULL);
  CREATE TABLE audit_events (id uuid, at timestamptz(3), actor_type text, actor_id uuid, actor_name text, action text,
    token_id uuid, project_id uuid, subject_type text, subject_id text, subject_name text, ip text, user_agent text,
    request_id text, details jsonb);
  CREATE TABLE audit_links (seq bigint, event_id uuid, event_at timestamptz(3), hash bytea);
  CREATE TABLE audit_checkpoints (seq bigint, hash bytea, at timestamptz(3), kind text, public_key text, signature bytea);
  INSERT INTO invalidation_log VALUES (gen_random_uuid())\`);
await client.end();
`;

let root: string;
let source: string;
beforeAll(async () => {
  root = mkdtempSync(path.join(tmpdir(), 'latchkey-home-'));
  chmodSync(root, 0o711); // PostgreSQL can run as another user
  source = path.join(root, '.latchkey');
  for (const [name, content] of [
    ['apps/token-service/dist/migrate.js', MIGRATE],
    ['package.json', '{"type": "module"}'],
    ['infra/gateway.yaml', 'routes: []\n'],
  ] as const) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), content);
  }
  mkdirSync(path.join(source, 'postgres'), { recursive: true });
  readOrCreateSecrets(path.join(source, 'secrets'), {}, null);
  const server = await startPostgres({ dir: path.join(source, 'postgres') });
  try {
    await migrateBy(path.join(root, 'apps/token-service/dist/migrate.js'), server.url)(['First1']);
  } finally {
    await server.stop();
  }
});
afterAll(() => rmSync(root, { recursive: true }));

let files = 0;
async function take(env: Record<string, string> = {}): Promise<string> {
  const file = path.join(root, `${++files}.age`);
  const { databaseUrl, secrets, files: others, close } = await home(root, root, env).source();
  try {
    await backup({ databaseUrl, secrets, files: others, file, lock, workFactor: 8 });
  } finally {
    await close();
  }
  return file;
}

test('a stopped home is backed up, and restored into a new one with its secrets, routes and data', async () => {
  const file = await take();
  expect(readdirSync(source)).not.toContain('owner');
  writeFileSync(path.join(root, 'infra/gateway.yaml'), 'routes: [changed]\n');
  const into = path.join(root, 'restored');
  const target = await home(root, root, {}).target(into);
  let next: string[];
  try {
    const restored = await restore({ file, unlock: lock, target: () => target.open() });
    next = await target.finish(restored);
  } finally {
    await target.close();
  }
  expect(next).toEqual([`Then: LATCHKEY_HOME=${into} GATEWAY_CONFIG=${into}/gateway.yaml npm start`]);
  expect(readFileSync(path.join(into, 'gateway.yaml'), 'utf8')).toBe('routes: []\n');
  const isOfDatabase = (name: string) => name.startsWith('database-password-');
  for (const name of readdirSync(path.join(source, 'secrets')).filter((each) => !isOfDatabase(each))) {
    const [a, b] = [source, into].map((dir) => path.join(dir, 'secrets', name));
    expect([name, readFileSync(b!, 'utf8')]).toEqual([name, readFileSync(a!, 'utf8')]);
    expect(statSync(b!).mode & 0o777).toBe(0o600);
  }
  expect(readdirSync(path.join(into, 'secrets')).filter(isOfDatabase)).toEqual([]);
  expect(readdirSync(into)).not.toContain('restoring');
  await expect(home(root, root, {}).target(into)).rejects.toThrow(/is not empty; a restore overwrites nothing/);
});

test('a running home is backed up from the PostgreSQL that runs; one that starts or stops is refused', async () => {
  const server = await startPostgres({ dir: path.join(source, 'postgres') });
  const claim = claimFolder(source);
  const ready = path.join(source, 'ready.json');
  try {
    await expect(take()).rejects.toThrow(/is starting or stopping; repeat when it is ready/);
    writeFileSync(ready, JSON.stringify({ databaseUrl: server.url }));
    expect(existsSync(await take())).toBe(true);
  } finally {
    rmSync(ready, { force: true });
    claim.release();
    await server.stop();
  }
});

test('a secret that is nowhere, and a home that is nowhere, are named', async () => {
  const file = path.join(source, 'secrets', 'token-peppers');
  const pepper = readFileSync(file, 'utf8');
  rmSync(file);
  try {
    await expect(take()).rejects.toThrow(/TOKEN_PEPPERS is neither in the environment nor in .*token-peppers/);
    const { secrets, close } = await home(root, root, { TOKEN_PEPPERS: 'of the environment' }).source();
    await close();
    expect(secrets['TOKEN_PEPPERS']).toBe('of the environment');
  } finally {
    writeFileSync(file, pepper, { mode: 0o600 });
  }
  await expect(take({ LATCHKEY_HOME: '/missing' })).rejects.toThrow(/\/missing does not exist; LATCHKEY_HOME/);
});

test('a home whose restore was not finished does not start', async () => {
  const dir = path.join(root, 'half');
  mkdirSync(dir);
  writeFileSync(path.join(dir, 'restoring'), '');
  const launcher = launch(root, { LATCHKEY_HOME: dir });
  expect(await launcher.ended).toBe(1);
  expect(launcher.output()).toMatch(/a restore into .*half was not finished; remove the folder, and restore again/);
});
