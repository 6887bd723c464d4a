import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { mint } from '@latchkey/token-format';
import { Scanner } from '../src/cli/scan.js';
import { folder, latchkey } from './command.js';
import { json, serve } from './server.js';

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});
async function temporaryFolder() {
  const { at, remove } = await folder();
  ends.push(remove);
  return at;
}

describe('Scanner', () => {
  it('finds a token however the stream is chunked', () => {
    const secrets = [mint('pat'), mint('prj')];
    const text = Buffer.from(`one\n"${secrets[0]}"\n\nx=${secrets[1]}\n`);
    for (let size = 1; size <= text.length; size++) {
      const scanner = new Scanner('lk');
      const found = [];
      for (let at = 0; at < text.length; at += size) found.push(...scanner.feed(text.subarray(at, at + size)));
      expect(found.map(({ secret, line }) => [secret, line])).toEqual([
        [secrets[0], 2],
        [secrets[1], 4],
      ]);
    }
  });

  it('finds tokens between arbitrary bytes, adjacent ones, and in UTF-16', () => {
    const [a, b, c] = [mint('pat'), mint('pat'), mint('prj')];
    const noise = randomBytes(5_000);
    const bytes = Buffer.concat([noise, Buffer.from(`${a}${b}`), noise, Buffer.from(c ?? '', 'utf16le'), noise]);
    for (const size of [bytes.length, 1_000, 7]) {
      const scanner = new Scanner('lk');
      const found = [];
      for (let at = 0; at < bytes.length; at += size) found.push(...scanner.feed(bytes.subarray(at, at + size)));
      expect(found.map(({ secret }) => secret)).toEqual([a, b, c]);
    }
  });

  it('ignores text that only looks like a token', () => {
    const secret = mint('pat');
    const wrong = secret.slice(0, -1) + (secret.endsWith('a') ? 'b' : 'a');
    const scanner = new Scanner('lk');
    const text = `${wrong} ${secret.slice(0, -1)} lk_p lk_pat_ lk_pxx_${secret.slice(7)} ${secret.toUpperCase()}\n`;
    expect([...scanner.feed(Buffer.from(text + '.'.repeat(200)))]).toEqual([]);
    expect([...new Scanner('acme').feed(Buffer.from(`${secret} ${mint('pat', 'acme')}`))]).toHaveLength(1);
  });
});

describe('latchkey scan', () => {
  it('prints file and line, never the secret, and exits with code 10', async () => {
    const at = await temporaryFolder();
    const secret = mint('pat');
    await mkdir(path.join(at, 'deep', 'er'), { recursive: true });
    await writeFile(path.join(at, 'deep', 'er', '.env'), `A=1\nTOKEN=${secret}\n`);
    await writeFile(path.join(at, 'clean.txt'), 'nothing');
    await symlink('/', path.join(at, 'root'));
    const ran = await latchkey(['scan', at]);
    expect(ran).toMatchObject({ code: 10, out: `${at}/deep/er/.env:2: ${secret.slice(0, 11)}…\n` });
    expect(ran.err).toContain('1 found, 1 different');
    const asJson = await latchkey(['--json', 'scan', at]);
    expect(JSON.parse(asJson.out)).toEqual([{ place: `${at}/deep/er/.env`, line: 2, start: secret.slice(0, 11) }]);
    for (const text of [ran.out, ran.err, asJson.out, asJson.err]) expect(text).not.toContain(secret);
  });

  it('exits with code 0 where there is no token, and reads standard input', async () => {
    const at = await temporaryFolder();
    expect(await latchkey(['scan', at])).toMatchObject({ code: 0, out: '' });
    expect(await latchkey(['scan', path.join(at, 'absent')])).toMatchObject({ code: 2 });
    expect(await latchkey(['scan', '-'], {}, `x ${mint('prj')}`)).toMatchObject({ code: 10 });
    expect(await latchkey(['scan', '-'], { LATCHKEY_PREFIX: 'acme' }, `x ${mint('prj')}`)).toMatchObject({ code: 0 });
  });

  it('finds tokens in a git history that are in no file any more', async () => {
    const at = await temporaryFolder();
    const git = (...args: string[]) =>
      execFileSync(
        'git',
        ['-C', at, '-c', 'user.name=t', '-c', 'user.email=t@example.org', '-c', 'commit.gpgsign=false', ...args],
        {
          stdio: ['ignore', 'pipe', 'pipe'],
        },
      ).toString();
    const [removed, inMessage, dropped] = [mint('pat'), mint('prj'), mint('pat')];
    git('init', '-q', '-b', 'main');
    await writeFile(path.join(at, 'config.json'), `{\n "token": "${removed}"\n}`);
    git('add', '.');
    git('commit', '-q', '-m', 'first');
    const first = git('rev-parse', '--short', 'HEAD').trim();
    await rm(path.join(at, 'config.json'));
    git('commit', '-q', '-a', '-m', `second\n\nuse ${inMessage}`);
    await writeFile(path.join(at, 'later'), dropped);
    git('add', '.');
    git('commit', '-q', '-m', 'third');
    git('reset', '-q', '--hard', 'HEAD~1');
    expect(await latchkey(['scan', at])).toMatchObject({ code: 0 });
    const ran = await latchkey(['scan', '--history', at]);
    expect(ran.code).toBe(10);
    const lines = ran.out.trim().split('\n');
    expect(lines).toHaveLength(3);
    expect(lines).toContain(`${first}:config.json:2: ${removed.slice(0, 11)}…`);
    expect(lines).toContainEqual(expect.stringMatching(/^blob [0-9a-f]{40}:1: lk_pat_/));
    expect(lines).toContainEqual(expect.stringMatching(/^commit [0-9a-f]{40}:\d+: lk_prj_/));
    expect(await latchkey(['scan', '--history', await temporaryFolder()])).toMatchObject({ code: 1 });
  });

  it('reports what it could not read', async () => {
    const ran = await latchkey(['scan', '/proc/self/mem']);
    expect(ran).toMatchObject({ code: 1, out: '' });
    expect(ran.err).toContain('cannot read /proc/self/mem: EIO');
  });

  it('reports each token once, without authentication', async () => {
    const server = await serve((_, response) => json(response, 202, { accepted: 1 }));
    ends.push(server.stop);
    const at = await temporaryFolder();
    const secrets = Array.from({ length: 1_100 }, () => mint('pat'));
    await writeFile(path.join(at, 'dump'), [...secrets, ...secrets].join('\n'));
    const ran = await latchkey(['scan', at, '--revoke'], { LATCHKEY_URL: server.baseUrl });
    expect(ran.code).toBe(10);
    expect(server.seen.map((one) => [one.method, one.url, one.headers.authorization])).toEqual(
      Array(2).fill(['POST', '/v1/tokens/revoke-exposed', undefined]),
    );
    const reported = server.seen.flatMap((one) => (JSON.parse(one.body) as { tokens: string[] }).tokens);
    expect(reported).toEqual(secrets);
  });
});
