import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { type Client, createClient } from '../index.js';
import { CommandError } from './exit.js';

export const DEFAULT_URL = 'http://127.0.0.1:8080';

/** What a command runs with, besides its options. */
export interface Environment {
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

/** The configuration file: `LATCHKEY_CONFIG`, else `latchkey/config.json` in XDG's configuration folder. */
export function configFile(env: NodeJS.ProcessEnv): string {
  if (env['LATCHKEY_CONFIG']) return env['LATCHKEY_CONFIG'];
  const folder = env['XDG_CONFIG_HOME'] || path.join(env['HOME'] || homedir(), '.config');
  return path.join(folder, 'latchkey', 'config.json');
}

/** @throws CommandError when the file exists but is not readable or not JSON */
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
    throw new CommandError('usage', `${file} is not JSON; run latchkey login to replace it`);
  }
}

/** Writes the file atomically, with mode 0600. */
export async function writeStored(env: NodeJS.ProcessEnv, stored: Stored): Promise<string> {
  const file = configFile(env);
  await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.${process.pid}`;
  await writeFile(temporary, `${JSON.stringify(stored, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
  await chmod(temporary, 0o600);
  await rename(temporary, file);
  return file;
}

export async function removeStored(env: NodeJS.ProcessEnv): Promise<void> {
  await rm(configFile(env), { force: true });
}

/** The server's address: `--url`, `LATCHKEY_URL`, the configuration file, else the default. */
export async function urlOf({ env }: Environment, options: GlobalOptions): Promise<string> {
  const url = options.url ?? env['LATCHKEY_URL'] ?? (await readStored(env)).url ?? DEFAULT_URL;
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new CommandError('usage', `${JSON.stringify(url)} is not an http or https URL`);
  return url;
}

/** A client with the token of `LATCHKEY_TOKEN` or the configuration file. */
export async function signedIn(environment: Environment, options: GlobalOptions): Promise<Client> {
  const stored = await readStored(environment.env);
  const url = await urlOf(environment, options);
  let token = environment.env['LATCHKEY_TOKEN'];
  if (!token) {
    // A stored token is sent only to the server it was stored for, regardless of --url.
    if (stored.token && stored.url && new URL(stored.url).origin !== new URL(url).origin)
      throw new CommandError(
        'unauthenticated',
        `the stored token is for ${stored.url}; run latchkey --url ${url} login`,
      );
    token = stored.token;
  }
  if (!token)
    throw new CommandError('unauthenticated', 'no token: run latchkey login, or set LATCHKEY_TOKEN in the environment');
  return clientFor(url, options, token, environment.env);
}

/** @throws CommandError where a token would leave this machine in the clear */
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
export async function readSecret({ stdin }: Environment, prompt: string, terminal: Writable): Promise<string> {
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
