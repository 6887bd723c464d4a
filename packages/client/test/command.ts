import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

const bin = path.join(import.meta.dirname, '..', 'bin', 'latchkey.mjs');

export interface Ran {
  code: number | null;
  out: string;
  err: string;
}

/** Runs the built command as a process, without the environment of the test run. */
export async function latchkey(
  args: string[],
  env: Record<string, string> = {},
  input?: string | Buffer,
): Promise<Ran> {
  const child = spawn(process.execPath, [bin, ...args], {
    env: { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.on('error', () => undefined); // a command that does not read it closes it
  child.stdin.end(input ?? '');
  const ran = { code: null as number | null, out: '', err: '' };
  child.stdout.on('data', (chunk) => {
    ran.out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    ran.err += chunk;
  });
  ran.code = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return ran;
}

/** A temporary folder, and a function that removes it. */
export async function folder() {
  const at = await mkdtemp(path.join(tmpdir(), 'latchkey-client-'));
  return { at, remove: () => rm(at, { recursive: true, force: true }) };
}
