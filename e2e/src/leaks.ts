import { execFile } from 'node:child_process';
import { hash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { Client } from 'pg';
import { type Place, readyOf } from './stack.js';

/** Somewhere a secret, or what is as good as it, was found. The secret itself is not repeated. */
export interface Leak {
  where: string;
  what: string;
}

interface Needle {
  text: string;
  what: string;
}

/** Every form in which a secret or its SHA-256 could be written down. */
export function needlesFor(secret: string): Needle[] {
  const form = (what: string, text: string) => ({ what: `${what} of ${secret.slice(0, 11)}…`, text });
  const bytes = Buffer.from(secret);
  const sha256 = hash('sha256', secret, 'buffer');
  const unpadded = (encoded: string) => encoded.replace(/=+$/, '');
  return [
    form('the secret', secret),
    // Without its prefix: something may have cut it.
    form('the random part', secret.slice(7)),
    form('the secret in hex', bytes.toString('hex')),
    form('the secret in base64', unpadded(bytes.toString('base64'))),
    form('SHA-256 in hex', sha256.toString('hex')),
    form('SHA-256 in upper-case hex', sha256.toString('hex').toUpperCase()),
    form('SHA-256 in base64', unpadded(sha256.toString('base64'))),
    form('SHA-256 in base64url', sha256.toString('base64url')),
    form('SHA-256 as bytes', sha256.toString('latin1')),
  ];
}

/** The secrets that tests have been given in this run. */
export function notedSecrets(place: Place): string[] {
  return readFileSync(place.secrets, 'utf8').split('\n').filter(Boolean);
}

/** A text to search (bytes as latin1) and its name. */
type Haystack = { where: string; text: string };

export function search(haystacks: Iterable<Haystack>, needles: Needle[]): Leak[] {
  const leaks: Leak[] = [];
  for (const { where, text } of haystacks) {
    for (const { text: needle, what } of needles) if (text.includes(needle)) leaks.push({ where, what });
  }
  return leaks;
}

/** Every row of every table of every schema but PostgreSQL's own, as text; binary columns appear in hex. */
export async function tables(databaseUrl: string): Promise<Haystack[]> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const { rows } = await client.query<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
       WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
    );
    const found: Haystack[] = [];
    for (const { name } of rows) {
      const { rows: lines } = await client.query<{ line: string }>(`SELECT t::text AS line FROM ${name} t`);
      found.push({ where: `table ${name}`, text: lines.map(({ line }) => line).join('\n') });
    }
    return found;
  } finally {
    await client.end();
  }
}

/** Every name and value in Redis, of every type. */
export async function redisContents(redisUrl: string): Promise<Haystack[]> {
  const redis = new Redis(redisUrl);
  try {
    const found: Haystack[] = [];
    let cursor = '0';
    do {
      const [next, names] = await redis.scan(cursor, 'COUNT', 1_000);
      cursor = next;
      for (const name of names)
        found.push({ where: `Redis ${name}`, text: `${name}\n${await readWhole(redis, name)}` });
    } while (cursor !== '0');
    return found;
  } finally {
    redis.disconnect();
  }
}

/** How each type is read in full. */
const READS: Record<string, (name: string) => [command: string, ...args: string[]]> = {
  string: (name) => ['GET', name],
  hash: (name) => ['HGETALL', name],
  list: (name) => ['LRANGE', name, '0', '-1'],
  set: (name) => ['SMEMBERS', name],
  zset: (name) => ['ZRANGE', name, '0', '-1'],
  stream: (name) => ['XRANGE', name, '-', '+'],
};

async function readWhole(redis: Redis, name: string): Promise<string> {
  const type = await redis.type(name);
  if (type === 'none') return '';
  const read = READS[type];
  if (!read) throw new Error(`Redis has a ${type} at ${name}, which this search cannot read`);
  const [command, ...args] = read(name);
  return latin1(await redis.callBuffer(command, ...args));
}

function latin1(reply: unknown): string {
  if (Buffer.isBuffer(reply)) return reply.toString('latin1');
  return Array.isArray(reply) ? reply.map(latin1).join('\n') : String(reply ?? '');
}

/** What the services printed, and every command that reached Redis. */
export function logs(place: Place): Haystack[] {
  return [place.log, place.redisLog].map((file) => ({
    where: path.basename(file),
    text: readFileSync(file, 'latin1'),
  }));
}

/** The arguments of every process of the stack; anyone on the machine can read them. */
export function processArguments(place: Place): Haystack[] {
  const pids = Object.values(readyOf(place).pids).flat();
  return pids
    .filter((pid) => pid !== null)
    .map((pid) => ({ where: `arguments of process ${pid}`, text: readFileSync(`/proc/${pid}/cmdline`, 'latin1') }));
}

/**
 * Searches every file below LATCHKEY_HOME, the database's own included, and the ledger, by grep.
 * @returns the files that contain one of the needles
 */
export async function filesThatHold(place: Place, needles: Needle[]): Promise<string[]> {
  const patterns = path.join(place.dir, 'needles');
  // SHA-256 as bytes can contain line breaks, which grep would take for two patterns.
  const lines = needles.map(({ text }) => text).filter((text) => /^[\x20-\x7e]+$/.test(text));
  writeFileSync(patterns, `${lines.join('\n')}\n`, { mode: 0o600 });
  const run = promisify(execFile)('grep', ['-r', '-l', '-a', '-F', '-f', patterns, place.home, place.ledger], {
    env: { ...process.env, LC_ALL: 'C' },
    maxBuffer: 1e7,
  });
  // grep ends with 1 when it found nothing, and 2 when something went wrong.
  const { stdout } = await run.catch((error: { code?: number; stdout?: string; stderr?: string }) => {
    const vanished = (error.stderr ?? '')
      .trim()
      .split('\n')
      .every((line) => line === '' || line.endsWith('No such file or directory'));
    if (error.code === 1 || (error.code === 2 && vanished)) return { stdout: error.stdout ?? '' };
    throw error;
  });
  return stdout.split('\n').filter(Boolean);
}
