import { z } from 'zod';
import { type Entry, entriesOf } from './archive.js';
import { BackupError } from './errors.js';
import type { Unlock } from './keys.js';
import {
  type Content,
  Digesting,
  type Digests,
  digestsSchema,
  FORMAT,
  type Manifest,
  manifestSchema,
} from './manifest.js';

/** What a reader does with each part, in the order of the archive. All are optional. */
export interface Visitor {
  manifest?(manifest: Manifest): Promise<void>;
  /** Reads all of the parts. */
  table?(name: string, parts: AsyncIterable<Buffer>): Promise<void>;
  secret?(name: string, value: string): void;
  file?(name: string, data: Buffer): void;
}

export interface Contents {
  manifest: Manifest;
  digests: Digests;
}

/**
 * Reads an archive to its end and compares every digest.
 * @throws BackupError naming the entry that is damaged, missing or unexpected; what the visitor throws
 */
export async function readContents(file: string, unlock: Unlock, visitor: Visitor = {}): Promise<Contents> {
  const entries = new Peekable(entriesOf(file, unlock));
  try {
    const manifest = parseManifest(file, await entries.take('manifest.json'));
    await visitor.manifest?.(manifest);
    const read: Digests = { tables: {}, secrets: {}, files: {} };
    for (const { name } of manifest.tables) {
      const digesting = new Digesting();
      const parts = partsOf(entries, `tables/${name}/`, digesting);
      await visitor.table?.(name, parts);
      for await (const _ of parts);
      read.tables[name] = { ...digesting.content, rows: digesting.rows };
    }
    const whole = async (entryName: string) => {
      const entry = await entries.take(entryName);
      if (!entry) throw new BackupError(`${file} has no entry ${entryName}; use another backup`);
      const digesting = new Digesting();
      digesting.add(entry.data);
      return { data: entry.data, content: digesting.content };
    };
    for (const { name } of manifest.secrets) {
      const { data, content } = await whole(`secrets/${name}`);
      read.secrets[name] = content;
      visitor.secret?.(name, data.toString('utf8'));
    }
    for (const name of manifest.files) {
      const { data, content } = await whole(`files/${name}`);
      read.files[name] = content;
      visitor.file?.(name, data);
    }
    const digests = parse(file, digestsSchema, (await whole('digests.json')).data, 'digests.json');
    const rest = await entries.peek();
    if (rest) throw new BackupError(`${file} has an entry ${rest.name} behind its end; use another backup`);
    compare(file, read, digests);
    return { manifest, digests };
  } finally {
    await entries.close();
  }
}

/** The parts of one table, numbered from 0. */
async function* partsOf(entries: Peekable, folder: string, digesting: Digesting): AsyncGenerator<Buffer> {
  for (let part = 0; ; part++) {
    const entry = await entries.take(`${folder}${partName(part)}`);
    if (!entry) return;
    digesting.add(entry.data);
    yield entry.data;
  }
}

/** The name of a part of a table, in its folder. */
export const partName = (part: number): string => String(part).padStart(7, '0');

function parseManifest(file: string, entry: Entry | null): Manifest {
  if (!entry) throw new BackupError(`${file} does not begin with a manifest; it is no backup of Latchkey`);
  const { format } = parse(file, z.object({ format: z.number() }), entry.data, 'manifest.json');
  if (format !== FORMAT)
    throw new BackupError(
      `${file} has format ${format}, and this Latchkey reads format ${FORMAT}; use the version that wrote it, or a later one`,
    );
  return parse(file, manifestSchema, entry.data, 'manifest.json');
}

function parse<T>(file: string, schema: z.ZodType<T>, data: Buffer, entryName: string): T {
  try {
    return schema.parse(JSON.parse(data.toString('utf8')));
  } catch (error) {
    const [issue] = error instanceof z.ZodError ? error.issues : [];
    const reason = issue ? `${issue.path.join('.')}: ${issue.message}` : (error as Error).message;
    throw new BackupError(`${file}: its entry ${entryName} is not valid (${reason}); use another backup`);
  }
}

function compare(file: string, read: Digests, written: Digests): void {
  for (const kind of ['tables', 'secrets', 'files'] as const) {
    const [found, expected] = [read[kind], written[kind]] as Record<string, Content & { rows?: number }>[];
    for (const name of new Set([...Object.keys(found!), ...Object.keys(expected!)])) {
      const [a, b] = [found![name], expected![name]];
      if (a && b && a.bytes === b.bytes && a.sha256 === b.sha256 && a.rows === b.rows) continue;
      throw new BackupError(`${file}: ${kind}/${name} is not what was written; use another copy of the backup`);
    }
  }
}

/** Entries that can be looked at before they are taken. */
class Peekable {
  private next: Entry | null | undefined;

  constructor(private readonly entries: AsyncGenerator<Entry>) {}

  async peek(): Promise<Entry | null> {
    if (this.next === undefined) {
      const { done, value } = await this.entries.next();
      this.next = done ? null : value;
    }
    return this.next;
  }

  /** The next entry if it has this name, else null. */
  async take(name: string): Promise<Entry | null> {
    const entry = await this.peek();
    if (entry?.name !== name) return null;
    this.next = undefined;
    return entry;
  }

  async close(): Promise<void> {
    await this.entries.return(undefined);
  }
}
