import { createWriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { createGunzip, createGzip, type Gunzip, type Gzip } from 'node:zlib';
import type { Encrypter } from 'age-encryption';
import { createTarDecoder, createTarPacker, type ParsedTarEntry } from 'modern-tar';
import { BackupError, reasonOf } from './errors.js';
import { decrypterOf, type Unlock } from './keys.js';

/** Longest entry that is written: a table is cut into parts of this size, so that memory is bounded. */
export const PART_BYTES = 4 * 1024 * 1024;
/** Longest entry that is read. */
const ENTRY_BYTES_MAX = 64 * 1024 * 1024;

export interface Entry {
  name: string;
  data: Buffer;
}

/** Adds one entry, and resolves when there is room for the next. */
export type AddEntry = (name: string, data: Uint8Array) => Promise<void>;

/**
 * Writes an archive: a tar file, compressed by gzip, encrypted by age. The file is new, readable by this user only, and
 * flushed when the promise resolves.
 * @param fill adds the entries
 * @throws what `fill` throws; BackupError when the file exists or cannot be written
 */
export async function writeArchive(
  file: string,
  encrypter: Encrypter,
  fill: (add: AddEntry) => Promise<void>,
): Promise<void> {
  const { readable, controller } = createTarPacker();
  /** Set when an entry could not be added, because the file takes no more. */
  let stopped: unknown;
  const add: AddEntry = async (name, data) => {
    try {
      const writer = controller.add({ name, size: data.length, mode: 0o600, uid: 0, gid: 0 }).getWriter();
      if (data.length > 0) await writer.write(data);
      await writer.close();
    } catch (error) {
      stopped = error;
      throw error;
    }
  };
  let cause: unknown;
  const filling = fill(add).then(
    () => controller.finalize(),
    (error) => {
      cause = error;
      controller.error(error);
    },
  );
  try {
    const encrypted = await encrypter.encrypt(through(readable, createGzip()));
    const target = createWriteStream(file, { flags: 'wx', mode: 0o600, flush: true });
    await pipeline(Readable.fromWeb(encrypted as NodeReadableStream), target);
  } catch (error) {
    controller.error(error);
    await filling;
    if (cause !== undefined && cause !== stopped) throw cause;
    throw new BackupError(`writing ${file} failed: ${reasonOf(error)}; check the space and rights of its folder`);
  }
}

/**
 * The entries of an archive, in their order.
 * @throws BackupError when it cannot be opened, or is damaged: every byte is authenticated
 */
export async function* entriesOf(file: string, unlock: Unlock): AsyncGenerator<Entry> {
  const decrypted = await opened(file, unlock);
  const tar = through(decrypted, createGunzip());
  const entries = tar.pipeThrough(createTarDecoder({ strict: true })).getReader();
  let last: string | undefined;
  try {
    for (;;) {
      const { done, value } = await entries.read().catch((error) => damaged(file, last, error));
      if (done) return;
      const { name, size } = value.header;
      if (size > ENTRY_BYTES_MAX) throw new BackupError(`${file}: the entry ${name} is too long to be one of a backup`);
      last = name;
      yield { name, data: await contentOf(value).catch((error) => damaged(file, name, error)) };
    }
  } finally {
    await entries.cancel().catch(() => undefined);
  }
}

async function opened(file: string, unlock: Unlock): Promise<ReadableStream<Uint8Array>> {
  const decrypter = decrypterOf(unlock);
  const handle = await open(file).catch((error) => {
    throw new BackupError(`${file} cannot be read: ${reasonOf(error)}`);
  });
  const source = Readable.toWeb(handle.createReadStream()) as ReadableStream<Uint8Array>;
  try {
    return await decrypter.decrypt(source);
  } catch (error) {
    await source.cancel().catch(() => undefined);
    await handle.close().catch(() => undefined);
    const { message } = error as Error;
    if (!message.startsWith('no identity matched'))
      throw new BackupError(
        `${file} is not a backup, or its first bytes are damaged (${message}); use another copy of it`,
      );
    const wrong =
      'passphrase' in unlock
        ? 'the passphrase is another one than it was encrypted with, or it was encrypted to recipients'
        : 'none of the identities belongs to a recipient that it was encrypted to, or it was encrypted with a passphrase';
    throw new BackupError(`${file} cannot be decrypted: ${wrong}`);
  }
}

async function contentOf({ body }: ParsedTarEntry): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body as AsyncIterable<Uint8Array>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Not (De)CompressionStream: when its reader stops early, it throws where no one can catch it. */
function through(source: ReadableStream<Uint8Array>, zlib: Gzip | Gunzip): ReadableStream<Uint8Array> {
  // A failure destroys zlib, whose reader gets the error.
  pipeline(Readable.fromWeb(source as NodeReadableStream), zlib).catch(() => undefined);
  return (ReadableStream as unknown as typeof NodeReadableStream).from<Uint8Array>(zlib) as ReadableStream<Uint8Array>;
}

function damaged(file: string, last: string | undefined, error: unknown): never {
  const where = last === undefined ? 'before its first entry' : `in or behind its entry ${last}`;
  throw new BackupError(`${file} is damaged ${where} (${reasonOf(error)}); use another copy of it`);
}
