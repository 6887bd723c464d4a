import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type AuditEvent, CHAIN_START, chainHash, signCheckpoint } from '@latchkey/contracts';
import { folder, latchkey } from './command.js';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const spki = publicKey.export({ type: 'spki', format: 'der' }).toString('base64');

let dir: Awaited<ReturnType<typeof folder>>;
beforeAll(async () => {
  dir = await folder();
});
afterAll(() => dir.remove());

/** An export of `count` events, signed at sequence number `signedAt`. */
function exportOf(count: number, signedAt: number) {
  let hash = CHAIN_START;
  const lines: string[] = [];
  const checkpoints: string[] = [];
  for (let seq = 1; seq <= count; seq++) {
    const event: Omit<AuditEvent, 'seq' | 'hash'> = {
      id: `01890000-0000-7000-8000-${String(seq).padStart(12, '0')}`,
      at: new Date(1_700_000_000_000 + seq).toISOString(),
      actor: { type: 'system', id: null, name: 'Latchkey' },
      action: 'token.expired',
      tokenId: null,
      projectId: null,
      subject: null,
      ip: null,
      userAgent: null,
      requestId: null,
      details: { z: 1, a: 'ü' },
    };
    hash = chainHash(hash, event);
    const signed = signCheckpoint(privateKey, { seq, hash, at: event.at, kind: 'sealed' });
    if (seq === signedAt) checkpoints.push(JSON.stringify(signed));
    const proof = seq === signedAt ? { checkpoints: [{ ...signed, publicKey: spki }] } : {};
    lines.push(JSON.stringify({ ...event, seq, hash, ...proof }));
  }
  return { lines, checkpoints };
}

const verify = (lines: string[], ...args: string[]) =>
  latchkey(['--json', 'audit', 'verify', ...args], {}, `${lines.join('\n')}\n`);

async function file(name: string, text: string): Promise<string> {
  const at = path.join(dir.at, name);
  await writeFile(at, text);
  return at;
}

test('proves an export without a server, from a file or standard input', async () => {
  const { lines } = exportOf(5, 4);
  const key = await file('key.pem', publicKey.export({ type: 'spki', format: 'pem' }).toString());
  const fromFile = await latchkey([
    '--json',
    'audit',
    'verify',
    await file('a.ndjson', lines.join('\n')),
    '--key',
    key,
  ]);
  expect(fromFile.code).toBe(0);
  expect(JSON.parse(fromFile.out)).toMatchObject({ ok: true, events: 5, signedThrough: 4 });
  expect(await verify(lines, '-')).toMatchObject({ code: 0 });
});

test('names the first event that was edited, deleted or moved, and exits with code 11', async () => {
  const { lines } = exportOf(5, 4);
  const cases: [string[], number][] = [
    [lines.with(1, lines[1]!.replace('Latchkey', 'Mallory')), 2],
    [lines.toSpliced(2, 1), 3],
    [lines.with(0, lines[1]!).with(1, lines[0]!), 1],
  ];
  for (const [changed, seq] of cases) {
    const ran = await verify(changed);
    expect(ran.code).toBe(11);
    expect(JSON.parse(ran.out).firstBroken.seq).toBe(seq);
  }
});

test('detects a truncated export with a checkpoint stored elsewhere, also as a line of the log', async () => {
  const { lines, checkpoints } = exportOf(5, 4);
  const line = JSON.stringify({ level: 'info', checkpoint: checkpoints[0] });
  const log = await file('service.log', `started\n${line}\n`);
  expect(await verify(lines, '--checkpoints', log)).toMatchObject({ code: 0 });
  const cut = await verify(
    lines.slice(0, 3),
    '--key',
    await file('k.pem', publicKey.export({ type: 'spki', format: 'pem' }).toString()),
    '--checkpoints',
    log,
  );
  expect(cut.code).toBe(11);
  expect(JSON.parse(cut.out).firstBroken).toMatchObject({ seq: 4 });
});

test('accepts only signatures of the given key', async () => {
  const { lines } = exportOf(5, 4);
  const other = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const ran = await verify(lines, '--key', await file('other.pem', other));
  expect(ran.code).toBe(11);
  expect(JSON.parse(ran.out).firstBroken.reason).toContain('no trusted key');
});

test('rejects an export without events', async () => {
  const ran = await verify([]);
  expect([ran.code, ran.out]).toEqual([2, '']);
  expect(ran.err).toContain('no event');
});

test('reports a file that is missing, or contains no key or no checkpoint', async () => {
  const text = await file('text', 'nothing of use');
  for (const args of [['--key', text], ['--checkpoints', text], ['--key', '/nonexistent'], ['/nonexistent']]) {
    const ran = await verify([], ...args);
    expect(ran.code).toBe(2);
    expect(ran.err).toMatch(/contains no|cannot read/);
  }
});
