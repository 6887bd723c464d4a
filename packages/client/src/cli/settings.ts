import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { type Client, createClient } from '../index.js';
import { CommandError } from './exit.js';

export const DEFAULT_URL = 'http://127.0.0.1:8080';

/** What every command may be told: the environment, and the options before or after its name. */
export interface Surroundings {
  env: NodeJS.ProcessEnv;
  stdin: NodeJS.ReadStream;
}
export interface GlobalOptions {
  url?: string;
  json?: boolean;
  timeout?: number;
}

interface Stored {
  url?: string;
  token?: string;
}

/** The configuration file: `LATCHKEY_CONFIG`, else `latchkey/config.json` where XDG keeps configuration. */
export function configFile(env: NodeJS.ProcessEnv): string {
  if (env['LATCHKEY_CONFIG']) return env['LATCHKEY_CONFIG'];
  const folder = env['XDG_CONFIG_HOME'] || path.join(env['HOME'] || homedir(), '.config');
  return path.join(folder, 'latchkey', 'config.json');
}

/** @throws CommandError when the file is there but not readable as ours */
export async function readStored(env: NodeJS.ProcessEnv): Promise<Stored> {
  const file = configFile(env);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new CommandError('failed', `cannot read ${file}: ${(error as Error).message}`);
  }
  try {
    const { url, token } = JSON.parse(text) as Stored;
    return { ...(typeof url === 'string' ? { url } : {}), ...(typeof token === 'string' ? { token } : {}) };
  } catch {
    throw new CommandError('usage', `${file} is not JSON; run latchkey login to write it anew`);
  }
}

/** Writes the file with mode 0600, whole or not at all. */
export async function writeStored(env: NodeJS.ProcessEnv, stored: Stored): Promise<string> {
  const file = configFile(env);
  await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  const beside = `${file}.${process.pid}`;
  await writeFile(beside, `${JSON.stringify(stored, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
  await chmod(beside, 0o600);
  await rename(beside, file);
  return file;
}

export async function removeStored(env: NodeJS.ProcessEnv): Promise<void> {
  await rm(configFile(env), { force: true });
}

/** The server's address: `--url`, `LATCHKEY_URL`, the configuration file, else this machine's default. */
export async function urlOf({ env }: Surroundings, options: GlobalOptions): Promise<string> {
  const url = options.url ?? env['LATCHKEY_URL'] ?? (await readStored(env)).url ?? DEFAULT_URL;
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new CommandError('usage', `${JSON.stringify(url)} is no http or https address`);
  return url;
}

/** A client with the token of `LATCHKEY_TOKEN` or the configuration file. */
export async function signedIn(around: Surroundings, options: GlobalOptions): Promise<Client> {
  const stored = await readStored(around.env);
  const url = await urlOf(around, options);
  let token = around.env['LATCHKEY_TOKEN'];
  if (!token) {
    // A stored token goes to the server it was stored for, whatever --url says.
    if (stored.token && stored.url && new URL(stored.url).origin !== new URL(url).origin)
      throw new CommandError(
        'unauthenticated',
        `the stored token is for ${stored.url}; run latchkey --url ${url} login`,
      );
    token = stored.token;
  }
  if (!token)
    throw new CommandError('unauthenticated', 'no token: run latchkey login, or set LATCHKEY_TOKEN in the environment');
  return clientFor(url, options, token, around.env);
}

/** @throws CommandError where a token would travel in the clear beyond this machine */
export function clientFor(url: string, options: GlobalOptions, token?: string, env: NodeJS.ProcessEnv = {}): Client {
  const { protocol, hostname } = new URL(url);
  const here = hostname === 'localhost' || hostname === '[::1]' || hostname.startsWith('127.');
  if (token && protocol === 'http:' && !here && env['LATCHKEY_ALLOW_HTTP'] !== 'true')
    throw new CommandError(
      'usage',
      `${url} would send the token in the clear: use https, or set LATCHKEY_ALLOW_HTTP=true if the network is trusted`,
    );
  return createClient({
    baseUrl: url,
    userAgent: 'latchkey-command/0.1',
    ...(token ? { token } : {}),
    ...(options.timeout ? { timeoutMs: options.timeout * 1_000 } : {}),
  });
}

/** One secret from standard input: a hidden prompt at a terminal, else the first line. */
export async function readSecret({ stdin }: Surroundings, prompt: string, terminal: Writable): Promise<string> {
  if (stdin.isTTY) terminal.write(prompt);
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: stdin, output: silent, terminal: stdin.isTTY === true });
  try {
    for await (const line of lines) return line.trim();
    return '';
  } finally {
    lines.close();
    if (stdin.isTTY) terminal.write('\n');
  }
}
