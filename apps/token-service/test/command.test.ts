import { spawn } from 'node:child_process';
import { hash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { AuditEvent, IssuedToken, Token } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { mint } from '@latchkey/token-format';
import { issue, type Person, project, type World, world } from './harness.js';

/** The built command, as people run it. */
const program = path.join(
  path.dirname(createRequire(import.meta.url).resolve('@latchkey/client')),
  '..',
  'bin',
  'latchkey.mjs',
);

let w: World;
let person: Person & { user: { id: string; name: string } };
let folder: string;
beforeAll(async () => {
  [w, folder] = await Promise.all([world(), mkdtemp(path.join(tmpdir(), 'latchkey-command-'))]);
  person = await w.member('Ada');
});
afterAll(async () => {
  await w.close();
  await rm(folder, { recursive: true, force: true });
});

interface Ran {
  code: number | null;
  out: string;
  err: string;
}

async function latchkey(args: string[], secret?: string, input = ''): Promise<Ran> {
  const child = spawn(process.execPath, [program, ...args], {
    env: {
      PATH: process.env['PATH'] ?? '',
      LATCHKEY_URL: w.service.apiUrl,
      LATCHKEY_CONFIG: path.join(folder, 'config.json'),
      ...(secret && { LATCHKEY_TOKEN: secret }),
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.on('error', () => undefined); // a command that reads nothing closes it
  child.stdin.end(input);
  const ran: Ran = { code: null, out: '', err: '' };
  child.stdout.on('data', (chunk) => {
    ran.out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    ran.err += chunk;
  });
  ran.code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  return ran;
}

const all = ['tokens:read', 'tokens:write', 'projects:read', 'projects:write'];

it('the command signs in from standard input, issues, lists, rotates and revokes', async () => {
  const own = await issue(person, { scopes: all });
  expect(await latchkey(['login'], undefined, own.secret)).toMatchObject({ code: 0 });
  const whoami = await latchkey(['--json', 'whoami']);
  expect(JSON.parse(whoami.out)).toMatchObject({ id: own.id, owner: { name: 'Ada' } });

  const made = await latchkey(['tokens', 'create', 'ci', '--scope', 'tokens:read', '--expires-in', '1h']);
  const secret = made.out.trim();
  expect(made).toMatchObject({ code: 0, out: expect.stringMatching(/^lk_pat_[0-9A-Za-z]{36}\n$/) });
  const self = (await w.bearer(secret).call<Token>('/v1/tokens/self')).body;
  expect(self).toMatchObject({ name: 'ci', parentId: own.id, scopes: ['tokens:read'] });

  const listed = await latchkey(['--json', 'tokens', 'list', '--search', 'ci']);
  expect((JSON.parse(listed.out) as Token[]).map(({ id }) => id)).toEqual([self.id]);
  const successor = (await latchkey(['tokens', 'rotate', self.id])).out.trim();
  expect((await w.bearer(secret).call('/v1/tokens/self')).status).toBe(401);
  const after = (await w.bearer(successor).call<Token>('/v1/tokens/self')).body;
  expect(await latchkey(['tokens', 'usage', after.id])).toMatchObject({ code: 0 });
  const revoked = await latchkey(['tokens', 'revoke', after.id, '--reason', 'exposed']);
  expect(revoked).toMatchObject({ code: 0, out: expect.stringContaining('effective everywhere') });
  expect((await w.bearer(successor).call('/v1/tokens/self')).status).toBe(401);

  expect(await latchkey(['tokens', 'revoke', 'self'])).toMatchObject({ code: 0 });
  expect(await latchkey(['whoami'])).toMatchObject({ code: 3, out: '' });
  expect(await latchkey(['logout'])).toMatchObject({ code: 0 });
});

it("the command's exit code shows why the service rejected a request", async () => {
  const bare = await issue(person);
  expect(await latchkey(['tokens', 'list'], bare.secret)).toMatchObject({ code: 4, out: '' });
  expect(await latchkey(['audit'], bare.secret)).toMatchObject({ code: 4 });
  const { secret } = await issue(person, { scopes: all });
  expect(await latchkey(['tokens', 'show', newId()], secret)).toMatchObject({ code: 5 });
  expect(await latchkey(['tokens', 'create', 'x', '--scope', 'not:declared'], secret)).toMatchObject({ code: 2 });
  expect(await latchkey(['tokens', 'create', 'x', '--scope', 'tokens:verify'], secret)).toMatchObject({ code: 4 });
});

it('the command imports tokens by hash, so that a secret never leaves the machine', async () => {
  const projectId = await project(person);
  const { secret: by } = await issue(person, { scopes: all });
  const [known, hashed] = [mint('prj'), mint('prj')];
  const file = path.join(folder, 'tokens.ndjson');
  const entry = { name: 'b', sha256: hash('sha256', hashed, 'hex'), start: hashed.slice(0, 11) };
  await writeFile(file, `${JSON.stringify({ name: 'a', secret: known })}\n\n${JSON.stringify(entry)}\n`);
  expect(await latchkey(['import', file, '--project', projectId], by)).toMatchObject({ code: 0, out: '2 imported\n' });
  for (const secret of [known, hashed]) expect((await w.bearer(secret).call('/v1/tokens/self')).status).toBe(200);
  expect(await latchkey(['import', file, '--project', projectId], by)).toMatchObject({ code: 6 });
  await writeFile(file, 'not json');
  const wrong = await latchkey(['import', file], by);
  expect(wrong).toMatchObject({ code: 2, err: expect.stringContaining('tokens.ndjson:1: is not JSON') });
  expect(w.logs()).not.toContain(known);
});

it('the command revokes tokens that it finds in a file, without a token of its own', async () => {
  const leaked: IssuedToken = await issue(person);
  await writeFile(path.join(folder, 'dump.txt'), `password=${leaked.secret}\n`);
  const ran = await latchkey(['scan', path.join(folder, 'dump.txt'), '--revoke']);
  expect(ran).toMatchObject({ code: 10, out: expect.stringContaining(`dump.txt:1: ${leaked.start}…`) });
  expect((await w.bearer(leaked.secret).call('/v1/tokens/self')).status).toBe(401);
  expect((await person.call<Token>(`/v1/tokens/${leaked.id}`)).body).toMatchObject({
    status: 'revoked',
    revocationReason: 'exposed',
  });
});

it('the command reads, exports and verifies the audit log', async () => {
  const admin = await w.signIn();
  const { secret } = await issue(admin, { scopes: ['audit:read'] });
  const table = await latchkey(['audit', '--action', 'token.issued', '--limit', '3'], secret);
  expect(table.out.split('\n')[0]).toMatch(/^AT +ACTION +ACTOR/);
  const exported = await latchkey(['audit', 'export'], secret);
  const events = exported.out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as AuditEvent);
  expect(events.map(({ action }) => action)).toContain('token.issued');
  expect(await latchkey(['audit', 'state'], secret)).toMatchObject({ code: 0 });
});
