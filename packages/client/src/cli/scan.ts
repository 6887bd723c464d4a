import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { lstat, open, opendir } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { CHECKSUM_LENGTH, parse, RANDOM_LENGTH } from '@latchkey/token-format';

const READ_BYTES = 1 << 20;

/** A Latchkey token that was found. `secret` is for revoking it; show `start` only. */
export interface Finding {
  place: string;
  /** From 1. */
  line: number;
  start: string;
  secret: string;
}

/** Finds tokens in a stream of arbitrary bytes, however it is chunked: by pattern, then by checksum. */
export class Scanner {
  private readonly needles: { bytes: Buffer; stride: 1 | 2 }[];
  private readonly length: number;
  private kept: Buffer = Buffer.alloc(0);
  private keptAt = 0;
  private lineBreaks = 0;
  private reported = -1;

  /** @param prefix of the tokens; they are also found in UTF-16 (little-endian) text */
  constructor(private readonly prefix: string) {
    this.length = prefix.length + 5 + RANDOM_LENGTH + CHECKSUM_LENGTH;
    this.needles = [
      { bytes: Buffer.from(`${prefix}_p`, 'latin1'), stride: 1 },
      { bytes: Buffer.from(`${prefix}_p`, 'utf16le'), stride: 2 },
    ];
  }

  /** The tokens that end in this chunk. */
  *feed(chunk: Buffer): Generator<Omit<Finding, 'place'>> {
    const text = this.kept.length ? Buffer.concat([this.kept, chunk]) : chunk;
    const hits = this.needles.flatMap((needle) => [...this.hits(text, needle)]).sort((a, b) => a.at - b.at);
    let line = this.lineBreaks;
    let countedTo = 0;
    for (const { at, secret, start } of hits) {
      line += lineBreaks(text, countedTo, at);
      countedTo = at;
      if (this.keptAt + at <= this.reported) continue;
      this.reported = this.keptAt + at;
      yield { line: line + 1, start, secret };
    }
    // A token can continue in the next chunk: keep as much as one in UTF-16 needs.
    const cut = Math.max(0, text.length - (this.length * 2 - 1));
    this.lineBreaks += lineBreaks(text, 0, cut);
    this.keptAt += cut;
    this.kept = Buffer.from(text.subarray(cut));
  }

  private *hits(text: Buffer, { bytes, stride }: { bytes: Buffer; stride: 1 | 2 }) {
    for (let at = text.indexOf(bytes); at !== -1; at = text.indexOf(bytes, at + 1)) {
      const end = at + this.length * stride;
      if (end > text.length) return;
      const secret = text.toString(stride === 1 ? 'latin1' : 'utf16le', at, end);
      const parsed = parse(secret, this.prefix);
      if (parsed.ok) yield { at, secret, start: parsed.start };
    }
  }
}

function lineBreaks(text: Buffer, from: number, to: number): number {
  let count = 0;
  for (let at = text.indexOf(10, from); at !== -1 && at < to; at = text.indexOf(10, at + 1)) count++;
  return count;
}

export async function* scanStream(stream: Readable, place: string, prefix: string): AsyncGenerator<Finding> {
  const scanner = new Scanner(prefix);
  for await (const chunk of stream) for (const found of scanner.feed(chunk as Buffer)) yield { place, ...found };
}

/** Called for what a scan cannot read; the scan is then incomplete. */
export type Unread = (place: string, reason: string) => void;

/**
 * Scans all files below a path, or one file. Symbolic links are not followed, and folders named `.git` are left to
 * `scanHistory`, since their content is compressed.
 */
export async function* scanFiles(from: string, prefix: string, unread: Unread): AsyncGenerator<Finding> {
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  for await (const file of filesBelow(from, unread)) {
    try {
      yield* scanFile(file, prefix, buffer);
    } catch (error) {
      unread(file, (error as NodeJS.ErrnoException).code ?? String(error));
    }
  }
}

/** One buffer for all files: most are small, and allocating one for each costs more than searching it. */
async function* scanFile(file: string, prefix: string, buffer: Buffer): AsyncGenerator<Finding> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const scanner = new Scanner(prefix);
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length);
      if (bytesRead === 0) return;
      for (const found of scanner.feed(buffer.subarray(0, bytesRead))) yield { place: file, ...found };
    }
  } finally {
    await handle.close();
  }
}

async function* filesBelow(from: string, unread: Unread): AsyncGenerator<string> {
  try {
    const entry = await lstat(from);
    if (entry.isFile()) yield from;
    if (!entry.isDirectory()) return;
    for await (const inner of await opendir(from)) {
      const at = path.join(from, inner.name);
      if (inner.isFile()) yield at;
      else if (inner.isDirectory() && inner.name !== '.git') yield* filesBelow(at, unread);
    }
  } catch (error) {
    unread(from, (error as NodeJS.ErrnoException).code ?? String(error));
  }
}

/**
 * Scans all objects of a git repository: every version of every file on any branch, unreachable ones too, and the texts
 * of commits and tags. Needs `git`; runs no code of the repository.
 */
export async function* scanHistory(repository: string, prefix: string): AsyncGenerator<Finding> {
  const names = new Map<string, string>();
  const objects = git(repository, ['cat-file', '--batch-all-objects', '--unordered', '--buffer', '--batch']);
  for await (const { id, type, chunks } of gitObjects(objects.stdout)) {
    const scanner = new Scanner(prefix);
    for await (const chunk of chunks) {
      for (const found of scanner.feed(chunk)) {
        const place = names.get(id) ?? (await nameOf(repository, id, type));
        names.set(id, place);
        yield { place, ...found };
      }
    }
  }
  await objects.ended;
}

interface GitObject {
  id: string;
  type: string;
  chunks: AsyncIterable<Buffer>;
}

/** Reads `git cat-file --batch`: `<id> <type> <size>`, a line break, that many bytes, a line break. */
async function* gitObjects(stdout: Readable): AsyncGenerator<GitObject> {
  const source = stdout[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  const more = async () => {
    const { value, done } = await source.next();
    if (done) return false;
    rest = rest.length ? Buffer.concat([rest, value as Buffer]) : (value as Buffer);
    return true;
  };
  for (;;) {
    while (rest.indexOf(10) === -1) if (!(await more())) return;
    const head = rest.toString('latin1', 0, rest.indexOf(10));
    rest = rest.subarray(head.length + 1);
    const [id = '', type = '', size = '0'] = head.split(' ');
    let left = Number(size) + 1;
    async function* chunks() {
      while (left > 0) {
        if (rest.length === 0 && !(await more())) throw new Error('git ended in the middle of an object');
        const part = rest.subarray(0, left);
        rest = rest.subarray(part.length);
        left -= part.length;
        yield left === 0 ? part.subarray(0, -1) : part;
      }
    }
    const remaining = chunks();
    yield { id, type, chunks: remaining };
    for await (const _ of remaining);
  }
}

/** `commit:path` of the first commit that added a blob; the object's id where no commit has it. */
async function nameOf(repository: string, id: string, type: string): Promise<string> {
  if (type !== 'blob') return `${type} ${id}`;
  const log = git(repository, ['log', '--all', '--reverse', '--format=%h', '--name-only', `--find-object=${id}`, '-m']);
  let text = '';
  for await (const chunk of log.stdout) text += chunk;
  await log.ended;
  const [commit, file] = text.split('\n').filter(Boolean);
  return commit && file ? `${commit}:${file}` : `blob ${id}`;
}

function git(repository: string, args: string[]) {
  const child = spawn('git', ['-C', repository, '--no-pager', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Prevents a pager or a file-system hook of the repository's configuration from running.
    env: {
      ...process.env,
      GIT_PAGER: 'cat',
      GIT_CONFIG_COUNT: '1',
      GIT_CONFIG_KEY_0: 'core.fsmonitor',
      GIT_CONFIG_VALUE_0: '',
    },
  });
  let output = '';
  child.stderr.on('data', (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-500);
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', (error) => reject(new Error(`cannot run git: ${error.message}`)));
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`git: ${output.trim() || `exit ${code}`}`)),
    );
  });
  ended.catch(() => undefined); // handled where it is awaited
  return { stdout: child.stdout, ended };
}
