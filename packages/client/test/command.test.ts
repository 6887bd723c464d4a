import { spawnSync } from 'node:child_process';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ERRORS, type ErrorCode, problem } from '@latchkey/contracts';
import { mint } from '@latchkey/token-format';
import { folder, latchkey } from './command.js';
import { json, type Seen, serve } from './server.js';

const id = '01890000-0000-7000-8000-000000000001';
const secret = mint('pat');
const token = {
  id,
  name: 'nightly\u001b[31m',
  description: '',
  kind: 'pat',
  owner: { type: 'user', id, name: 'Ada' },
  scopes: ['a:b'],
  start: 'lk_pat_abcd',
  status: 'active',
  expiresAt: null,
  lastUsedAt: null,
  allowedIps: [],
  rateLimit: { limit: 3, windowSeconds: 60 },
};

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

async function against(respond: (seen: Seen) => [number, unknown]) {
  const server = await serve((seen, response) => json(response, ...respond(seen)));
  ends.push(server.stop);
  const { at, remove } = await folder();
  ends.push(remove);
  const config = path.join(at, 'config.json');
  const env = { LATCHKEY_URL: server.baseUrl, LATCHKEY_CONFIG: config };
  return { ...server, config, env, signedIn: { ...env, LATCHKEY_TOKEN: secret } };
}

describe('login', () => {
  it('stores the token of standard input in a file that no one else can read', async () => {
    const { env, config, seen, baseUrl } = await against(() => [200, token]);
    const ran = await latchkey(['login'], env, `${secret}\n`);
    expect(ran).toMatchObject({ code: 0, out: '' });
    expect(ran.err).not.toContain(secret);
    expect((await stat(config)).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(config, 'utf8'))).toEqual({ url: baseUrl, token: secret });
    expect(await latchkey(['whoami'], { LATCHKEY_CONFIG: config })).toMatchObject({ code: 0 });
    expect(seen.map((one) => one.headers.authorization)).toEqual([`Bearer ${secret}`, `Bearer ${secret}`]);
    expect(await latchkey(['logout'], env)).toMatchObject({ code: 0 });
    expect(await latchkey(['whoami'], env)).toMatchObject({ code: 3 });
  });

  it('stores no token that the server does not accept', async () => {
    const { env, config } = await against(() => [401, problem('invalid_token', 'no', 'r')]);
    expect(await latchkey(['login'], env, secret)).toMatchObject({ code: 3 });
    await expect(stat(config)).rejects.toThrow('ENOENT');
    expect(await latchkey(['login'], env, '\n')).toMatchObject({ code: 2 });
  });

  it('sends a stored token only to the server it was stored for', async () => {
    const first = await against(() => [200, token]);
    const other = await against(() => [200, token]);
    await latchkey(['login'], first.env, secret);
    const ran = await latchkey(['--url', other.baseUrl, 'whoami'], { LATCHKEY_CONFIG: first.config });
    expect(ran.code).toBe(3);
    expect(other.seen).toHaveLength(0);
  });

  it('sends no token in the clear beyond this machine', async () => {
    const ran = await latchkey(['--url', 'http://tokens.example.invalid', 'whoami'], { LATCHKEY_TOKEN: secret });
    expect(ran).toMatchObject({ code: 2 });
    expect(ran.err).toContain('in the clear');
  });
});

describe('secrets', () => {
  it('rejects a secret on the command line, and does not print it', async () => {
    const { env, seen } = await against(() => [200, token]);
    for (const args of [
      ['login', secret],
      [`--url=${secret}`, 'whoami'],
      ['tokens', 'revoke', secret],
    ]) {
      const ran = await latchkey(args, env);
      expect(ran.code).toBe(2);
      expect(ran.out + ran.err).not.toContain(secret);
    }
    expect(seen).toHaveLength(0);
  });

  it('prints only a new secret on standard output, or JSON with it', async () => {
    const newSecret = mint('pat');
    const { signedIn, seen } = await against(() => [201, { ...token, secret: newSecret }]);
    const args = ['tokens', 'create', 'nightly', '--scope', 'a:b', '--scope', 'c:d', '--expires-in', '90d'];
    const ran = await latchkey(
      [...args, '--rate', '3/60', '--metadata', 'team=x=y', '--allow-ip', '10.0.0.0/8'],
      signedIn,
    );
    expect(ran).toMatchObject({ code: 0, out: `${newSecret}\n` });
    expect(ran.err).not.toContain(newSecret);
    expect(JSON.parse(seen[0]?.body ?? '')).toEqual({
      name: 'nightly',
      scopes: ['a:b', 'c:d'],
      expiresInSeconds: 7_776_000,
      allowedIps: ['10.0.0.0/8'],
      rateLimit: { limit: 3, windowSeconds: 60 },
      metadata: { team: 'x=y' },
    });
    const asJson = await latchkey(['--json', 'tokens', 'rotate', 'self', '--overlap', '10m'], signedIn);
    expect(JSON.parse(asJson.out)).toMatchObject({ secret: newSecret });
    expect(asJson.err).not.toContain(newSecret);
  });

  it('reports that the secret was lost', async () => {
    const { signedIn } = await against(() => [200, token]);
    const ran = await latchkey(['tokens', 'create', 'a'], signedIn);
    expect(ran).toMatchObject({ code: 1, out: '' });
    expect(ran.err).toContain(`tokens rotate ${id}`);
  });
});

describe('results', () => {
  it('prints tables without terminal control characters, and JSON unchanged', async () => {
    const { signedIn } = await against(() => [200, { items: [token], nextCursor: null }]);
    const table = await latchkey(['tokens', 'list'], signedIn);
    expect(table.out).toContain('nightly?[31m');
    expect(table.out.split('\n')[0]).toMatch(/^ID +NAME +START +OWNER +STATUS +SCOPES +EXPIRES +LAST USED$/);
    const asJson = await latchkey(['--json', 'tokens', 'list'], signedIn);
    expect(JSON.parse(asJson.out)).toEqual([token]);
  });

  it('its exit code is 8 when a revocation is not effective yet', async () => {
    const effect = {
      token: { ...token, status: 'revoked' },
      receipt: null,
      pending: [{ id, name: 'gw', leaseEndsInMs: 9 }],
    };
    const { signedIn, seen } = await against((one) =>
      one.headers['prefer'] === 'wait=0'
        ? [202, { ...effect, effective: false }]
        : [200, { ...effect, effective: true, pending: [] }],
    );
    const waited = await latchkey(['tokens', 'revoke', id, '--reason', 'exposed', '--comment', 'log'], signedIn);
    expect(waited).toMatchObject({ code: 0 });
    expect(JSON.parse(seen[0]?.body ?? '')).toEqual({ reason: 'exposed', comment: 'log' });
    const atOnce = await latchkey(['tokens', 'revoke', id, '--wait', '0'], signedIn);
    expect(atOnce).toMatchObject({ code: 8 });
    expect(atOnce.out).toContain('not yet confirmed by gw');
  });

  it('revokes what matches filters, lists it with --dry-run, and takes either an id or filters', async () => {
    const effect = { matched: 2, batch: id, ended: { tokens: 3, successors: 0, descendants: 1, shown: 0 } };
    const { signedIn, seen } = await against((one) =>
      JSON.parse(one.body).dryRun
        ? [200, { matched: 2, tokens: [token] }]
        : [202, { ...effect, effective: false, receipt: null, pending: [] }],
    );
    const filters = ['--project', id, '--created-before', '2026-01-01T00:00:00Z', '--prefix', 'lk_pat_3x'];
    const shown = await latchkey(['tokens', 'revoke', ...filters, '--dry-run'], signedIn);
    expect(shown).toMatchObject({ code: 0, out: expect.stringContaining(id) });
    expect(shown.err).toContain('2 would be revoked; none is');
    const ran = await latchkey(['tokens', 'revoke', ...filters, '--reason', 'policy', '--expect', '2'], signedIn);
    expect(ran).toMatchObject({ code: 8, out: expect.stringContaining('2 matched, 3 revoked; revoking continues') });
    expect(JSON.parse(seen[1]?.body ?? '')).toEqual({
      filter: { projectId: id, createdBefore: '2026-01-01T00:00:00Z', prefix: 'lk_pat_3x' },
      reason: 'policy',
      expect: 2,
      dryRun: false,
    });
    for (const args of [[], [id, '--owner', 'me'], [id, '--dry-run']])
      expect(await latchkey(['tokens', 'revoke', ...args], signedIn)).toMatchObject({ code: 2, out: '' });
    expect(seen).toHaveLength(2);
  });

  it('streams an export unchanged', async () => {
    const { signedIn } = await against(() => [200, 'x'.repeat(300_000)]);
    expect((await latchkey(['audit', 'export'], signedIn)).out).toBe(JSON.stringify('x'.repeat(300_000)));
  });

  it.each<[ErrorCode, number]>([
    ['invalid_request', 2],
    ['invalid_token', 3],
    ['insufficient_scope', 4],
    ['not_found', 5],
    ['conflict', 6],
    ['rate_limited', 7],
    ['internal', 1],
  ])('exits for %s with code %i, the reason on standard error', async (code, expected) => {
    const { signedIn } = await against(() => [ERRORS[code].status, problem(code, 'because', 'req-7')]);
    expect(await latchkey(['tokens', 'show', id], signedIn)).toEqual({
      code: expected,
      out: '',
      err: `latchkey: because (${code}, request req-7)\n`,
    });
  });

  it('exits with code 7 when the server is unreachable, and 2 when the command line is invalid', async () => {
    const { signedIn, stop } = await against(() => [200, token]);
    await stop();
    expect(await latchkey(['tokens', 'revoke', id], signedIn)).toMatchObject({ code: 7, out: '' });
    for (const args of [
      ['nonsense'],
      ['tokens', 'create'],
      ['tokens', 'create', 'a', '--expires-in', 'soon'],
      ['scan'],
    ])
      expect(await latchkey(args, signedIn)).toMatchObject({ code: 2, out: '' });
    expect(await latchkey(['--help'])).toMatchObject({ code: 0, err: '' });
  });
});

describe('receipt get', () => {
  it('prints a receipt as JSON, or as a JWT', async () => {
    const { signedIn, seen } = await against(({ headers }) => [
      200,
      headers.accept?.startsWith('application/jwt') ? 'a.b.c' : { id, verifiers: [] },
    ]);
    expect(JSON.parse((await latchkey(['receipt', 'get', id], signedIn)).out)).toEqual({ id, verifiers: [] });
    expect((await latchkey(['receipt', 'get', id, '--jwt'], signedIn)).out).toBe('"a.b.c"\n');
    expect(seen.map(({ url }) => url)).toEqual([`/v1/receipts/${id}`, `/v1/receipts/${id}`]);
  });

  it('fails for a JWT when the receipt is not signed', async () => {
    const { signedIn } = await against(() => [404, problem('not_signed', 'no', 'r')]);
    expect(await latchkey(['receipt', 'get', id, '--jwt'], signedIn)).toMatchObject({ code: 5, out: '' });
  });
});

describe('completion', () => {
  it('completes commands and options in bash', async () => {
    const { out } = await latchkey(['completion', 'bash']);
    const { at, remove } = await folder();
    ends.push(remove);
    await writeFile(path.join(at, 'script'), out);
    const complete = (...words: string[]) => {
      const set = `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}`;
      const shell = spawnSync('bash', [
        '-c',
        `. "$0"; ${set}; _latchkey; echo "\${COMPREPLY[@]}"`,
        path.join(at, 'script'),
      ]);
      return shell.stdout.toString().trim().split(' ');
    };
    expect(complete('latchkey', 'tok')).toEqual(['tokens']);
    expect(complete('latchkey', '--json', 'tokens', 'r')).toEqual(['revoke', 'rotate']);
    expect(complete('latchkey', 'tokens', 'create', 'x', '--sc')).toEqual(['--scope']);
  });

  it('names every command for each shell', async () => {
    for (const shell of ['bash', 'zsh', 'fish']) {
      const { code, out } = await latchkey(['completion', shell]);
      expect(code).toBe(0);
      for (const word of ['login', 'whoami', 'tokens', 'rotate', 'audit', 'scan', 'expires-in'])
        expect(out).toContain(word);
    }
    expect(await latchkey(['completion', 'tcsh'])).toMatchObject({ code: 2 });
  });
});
