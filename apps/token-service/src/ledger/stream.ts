import { closeSync, fdatasyncSync, fsyncSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { formatEntries, formatHead, type Identity, NO_PLACE, type Place, type StreamEnd, VERSION } from './format.js';

/** A segment is closed at this size, so that few bytes are read at a start. */
export const SEGMENT_BYTES_MAX = 1_048_576;

/** What a stream needs of the folder in which it is. */
export interface StreamFolder {
  readonly folder: string;
  readonly identity: Identity;
  /** @throws Error when the folder has become that of another ledger */
  mustBeThere(): void;
  /** How far every stream reaches. */
  ends(): Record<string, StreamEnd>;
}

export const segmentFile = (stream: string, segment: number) => `${stream}.${String(segment).padStart(6, '0')}`;

/** So that names in the folder survive a crash. */
export function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** @param at where; default: where the last write ended */
export function writeWhole(fd: number, text: string, at?: number): number {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, at === undefined ? null : at + done);
  return bytes.length;
}

/** A stream that this process alone appends to. */
export class LedgerStream {
  #fd: number | undefined;
  #bytes = 0;
  #segment = -1;
  #place: Place = NO_PLACE;

  constructor(
    private readonly within: StreamFolder,
    readonly stream: string,
    private readonly key: Buffer,
  ) {}

  get place(): Place {
    return this.#place;
  }

  /**
   * Appends entries, all or none, and syncs them.
   * @returns the place behind them
   * @throws an error of the file system; nothing has been appended then
   */
  append(entries: readonly unknown[]): Place {
    if (this.#fd === undefined || this.#bytes > SEGMENT_BYTES_MAX) this.#nextSegment();
    const { lines, place } = formatEntries(this.key, this.stream, this.#place, entries);
    this.#write(lines);
    this.#place = place;
    return place;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #nextSegment(): void {
    this.within.mustBeThere();
    const others = this.#segment < 0 ? this.within.ends() : {};
    const segment = this.#segment + 1;
    const { ledger } = this.within.identity;
    const at = new Date().toISOString();
    const head = { version: VERSION, ledger, stream: this.stream, segment, after: this.#place, at, others };
    const { line, place } = formatHead(this.key, head);
    const fd = openSync(path.join(this.within.folder, segmentFile(this.stream, segment)), 'w', 0o600);
    this.close();
    this.#fd = fd;
    this.#bytes = 0;
    try {
      this.#write(line);
      syncFolder(this.within.folder);
    } catch (error) {
      // Tried again under the same name, or never.
      this.close();
      rmSync(path.join(this.within.folder, segmentFile(this.stream, segment)), { force: true });
      throw error;
    }
    this.#segment = segment;
    this.#place = place;
  }

  #write(text: string): void {
    const fd = this.#fd!;
    // What an earlier write that failed has left.
    ftruncateSync(fd, this.#bytes);
    const written = writeWhole(fd, text, this.#bytes);
    fdatasyncSync(fd);
    this.#bytes += written;
  }
}
