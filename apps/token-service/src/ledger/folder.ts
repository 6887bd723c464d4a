import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import path from 'node:path';
import {
  formatLine,
  type Head,
  type Identity,
  LedgerFault,
  NO_PLACE,
  type Place,
  type Placed,
  readLine,
  readSegment,
  type Segment,
  type State,
  type StreamEnd,
  VERSION,
} from './format.js';
import { LedgerStream, segmentFile, syncFolder, writeWhole } from './stream.js';

const IDENTITY_FILE = 'ledger';
const IDENTITY = 'latchkey ledger';
const STATE = 'latchkey ledger state';
/** In place of its inode. */
const DISTRUSTED = 'distrusted';
const SEGMENT_NAME = /^([0-9a-f-]{36})\.(\d{6})$/;
/** What the database knows of a stream: everything up to this place has been seen there. */
export interface Mark extends Place {
  readonly stream: string;
  /** ISO 8601. */
  readonly seenAt: string;
}

/** When a stream was alive. */
export interface Life {
  readonly from: number;
  readonly to: number;
}

/** What a ledger contains behind the marks, and what is wrong with it. */
export interface Comparison<Entry> {
  /** In the order of each stream; an entry can be in several. */
  readonly entries: readonly Entry[];
  /** Empty: the ledger is whole. */
  readonly faults: readonly LedgerFault[];
  /** When a stream of it was last alive in a settled history, ISO 8601; null: never. */
  readonly reachesTo: string | null;
  /** Whether it is known of all its streams how far they reach. */
  readonly isStated: boolean;
  /** When its streams were alive, in milliseconds since 1970. */
  readonly lives: readonly Life[];
  /** Other ledgers that were alive with the last stream. */
  readonly peers: readonly string[];
  /** Those that its streams name. */
  readonly databases: readonly string[];
}

/** Turns errors of the file system into faults. */
function reading<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof LedgerFault) throw error;
    throw new LedgerFault('unreadable', `${where} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/** @returns null for what a fault keeps from being read */
function ifReadable<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if (error instanceof LedgerFault) return null;
    throw error;
  }
}

/** @returns none where there is no folder @throws LedgerFault `unreadable` */
const namesIn = (folder: string): string[] => (existsSync(folder) ? reading(folder, () => readdirSync(folder)) : []);

/** A ledger's folder. Every method blocks: it belongs in a thread of its own, or in a command. */
export class LedgerFolder {
  private constructor(
    readonly folder: string,
    public identity: Identity,
    /** The folder is where it was begun: not a copy, which can be an older one. */
    public isOriginal: boolean,
    readonly key: Buffer,
  ) {}

  /** Is called after each file that was read: reading all of them can take long. */
  onRead: () => void = () => undefined;

  /**
   * Opens a ledger, or begins one where there is none.
   * @param newId its id, if it is begun
   * @param at when it is begun then, ISO 8601; default: now
   * @throws LedgerFault `foreign`, `unreadable`; an error of the file system when it cannot be begun
   */
  static open(folder: string, key: Buffer, newId: () => string, at = new Date().toISOString()): LedgerFolder {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return LedgerFolder.existing(folder, key) ?? LedgerFolder.#begin(folder, key, newId(), at);
  }

  /** @returns null when there is none @throws LedgerFault `foreign`, `unreadable` */
  static existing(folder: string, key: Buffer): LedgerFolder | null {
    const file = path.join(folder, IDENTITY_FILE);
    const found = reading(file, () => {
      try {
        return { text: readFileSync(file, 'utf8'), inode: String(statSync(file, { bigint: true }).ino) };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
        throw error;
      }
    });
    if (!found) {
      if (namesIn(folder).some((name) => SEGMENT_NAME.test(name)))
        throw new LedgerFault('foreign', `${file} is missing, though the folder contains segments of a ledger`);
      return null;
    }
    const identity = readLine<Identity>(key, IDENTITY, found.text, file);
    if (identity.version !== VERSION)
      throw new LedgerFault('foreign', `${file} is of version ${identity.version}: a newer Latchkey wrote it`);
    return new LedgerFolder(folder, identity, identity.inode === found.inode, key);
  }

  /** Of several that begin at once, one does. */
  static #begin(folder: string, key: Buffer, id: string, begunAt: string): LedgerFolder {
    LedgerFolder.writeIdentity(folder, key, { version: VERSION, ledger: id, begunAt });
    return LedgerFolder.existing(folder, key)!;
  }

  /**
   * @param how `new`: unless there is one; `copy` and `complete`: in place of the one there, as an import does; `distrusted`: as
   *   a copy that was not imported
   */
  static writeIdentity(
    folder: string,
    key: Buffer,
    identity: Pick<Identity, 'version' | 'ledger' | 'begunAt'>,
    how: 'new' | 'copy' | 'complete' | 'original' | 'distrusted' = 'new',
  ): void {
    const { version, ledger, begunAt } = identity;
    const file = path.join(folder, IDENTITY_FILE);
    const draft = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}`;
    const fd = openSync(draft, 'wx', 0o600);
    try {
      const isOriginal = how === 'new' || how === 'original';
      const inode = isOriginal ? String(fstatSync(fd, { bigint: true }).ino) : how === 'distrusted' ? DISTRUSTED : '';
      writeWhole(fd, formatLine(key, IDENTITY, { version, ledger, begunAt, inode, isComplete: how === 'complete' }));
      fsyncSync(fd);
      if (how === 'new') linkSync(draft, file);
      else renameSync(draft, file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    } finally {
      closeSync(fd);
      rmSync(draft, { force: true });
    }
    syncFolder(folder);
  }

  /** @param isComplete nothing was written after the copy was made */
  declareImported(isComplete: boolean): void {
    LedgerFolder.writeIdentity(this.folder, this.key, this.identity, isComplete ? 'complete' : 'copy');
  }

  /** Whether it was found that it may lack what was revoked last, and nobody has decided yet. */
  get isDistrusted(): boolean {
    return this.identity.inode === DISTRUSTED;
  }

  /** It may lack what was revoked last: as a copy it does not vouch, to whichever process, until that is decided. */
  distrust(): void {
    this.mustBeThere();
    if (!this.isOriginal && !this.identity.isComplete) return;
    LedgerFolder.writeIdentity(this.folder, this.key, this.identity, 'distrusted');
    this.mustBeThere();
  }

  /** Makes a copied or imported ledger the original: what it lacked has been decided on. */
  adopt(): void {
    if (this.isOriginal && !this.identity.isComplete) return;
    LedgerFolder.writeIdentity(this.folder, this.key, this.identity, 'original');
    const { identity, isOriginal } = LedgerFolder.existing(this.folder, this.key)!;
    this.identity = identity;
    this.isOriginal = isOriginal;
  }

  /** Numbers of the segments of each stream, in order. */
  streams(): Map<string, number[]> {
    const names = reading(this.folder, () => readdirSync(this.folder)).sort();
    const found = new Map<string, number[]>();
    for (const name of names) {
      const [, stream, number] = SEGMENT_NAME.exec(name) ?? [];
      if (stream) found.set(stream, [...(found.get(stream) ?? []), Number(number)]);
    }
    return found;
  }

  /** @returns null when its head was never written whole: then it never held anything */
  segment<Entry>(stream: string, number: number): Segment<Entry> | null {
    const file = path.join(this.folder, segmentFile(stream, number));
    const text = reading(file, () => readFileSync(file, 'utf8'));
    this.onRead();
    if (!text.includes('\n')) return null;
    const segment = readSegment<Entry>(this.key, text, file);
    const { head } = segment;
    if (head.stream !== stream || head.segment !== number || head.ledger !== this.identity.ledger)
      throw new LedgerFault('changed', `${file} holds another segment, ${segmentFile(head.stream, head.segment)}`);
    return segment;
  }

  /** The last that was written of how far a stream reached; null: the file is missing. */
  state(stream: string): State | null {
    const file = path.join(this.folder, `${stream}.state`);
    const text = reading(file, () => {
      try {
        return readFileSync(file, 'utf8');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
        throw error;
      }
    });
    this.onRead();
    if (text === null) return null;
    const state = readLine<State>(this.key, STATE, text, file);
    if (state.stream !== stream) throw new LedgerFault('changed', `${file} is that of stream ${state.stream}`);
    return state;
  }

  /** Whether the folder is still that of this ledger. @throws LedgerFault `foreign`, `unreadable` */
  isThere(): boolean {
    return LedgerFolder.existing(this.folder, this.key)?.identity.ledger === this.identity.ledger;
  }

  /** @throws Error when the folder has become that of another ledger */
  mustBeThere(): void {
    const there = LedgerFolder.existing(this.folder, this.key);
    if (there?.identity.ledger !== this.identity.ledger)
      throw new Error(`${this.folder} has become that of another ledger`);
    // Another process may have adopted it, or have found that it lacks something.
    this.identity = there.identity;
    this.isOriginal = there.isOriginal;
  }

  /** Whole or not at all, after a power loss too. @throws Error when the folder has become that of another ledger */
  writeState(state: State): void {
    this.mustBeThere();
    const file = path.join(this.folder, `${state.stream}.state`);
    const fd = openSync(`${file}.new`, 'w', 0o600);
    try {
      writeWhole(fd, formatLine(this.key, STATE, state));
      fdatasyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(`${file}.new`, file);
  }

  /**
   * Reads what lies behind the marks and authenticates what it reads.
   * @param marks of the streams of this ledger
   * @param retainedSince streams last alive before it may have been removed, in milliseconds since 1970
   * @param database streams that name another one, and have no mark, are not read; default: all are
   */
  compare<Entry>(marks: readonly Mark[], retainedSince: number, database?: string): Comparison<Entry> {
    const faults: LedgerFault[] = [];
    const entries: Entry[] = [];
    const ends = new Map<string, StreamEnd & Pick<State, 'peers' | 'settledAt'>>();
    const lives: Life[] = [];
    const databases = new Set<string>();
    /** Streams of other databases. */
    const others = new Set<string>();
    let keptSince = retainedSince;
    const expected: (StreamEnd & { stream: string; by: string })[] = marks.map((mark) => {
      return { ...mark, at: mark.seenAt, by: 'the database' };
    });
    const streams = this.#attempt(faults, () => this.streams());
    /** Whether it is known of all streams how far they reach. */
    let isStated = streams !== undefined;
    for (const [stream, numbers] of streams ?? []) {
      const mark = marks.find((one) => one.stream === stream);
      // Before what it tells of: the process may be writing.
      const state = this.#attempt(faults, () => this.state(stream));
      if (state?.database !== undefined) databases.add(state.database);
      const isOther = database !== undefined && state?.database !== undefined && state.database !== database;
      if (isOther && !mark) {
        others.add(stream);
        continue;
      }
      if (state) lives.push({ from: Date.parse(state.begunAt), to: Date.parse(state.at) });
      const read =
        state === undefined
          ? undefined
          : this.#attempt(faults, () => this.#readStream<Entry>(stream, numbers, mark, state));
      if (read === null) continue;
      if (!read) {
        isStated &&= !!state;
        const { peers, settledAt } = state ?? { peers: [], settledAt: null };
        ends.set(stream, { ...NO_PLACE, at: '', peers, settledAt });
        continue;
      }
      entries.push(...read.entries);
      const { at, peers, settledAt } = read.state;
      keptSince = Math.max(keptSince, read.state.prunedBefore ?? 0);
      ends.set(stream, { ...read.end, at, peers, settledAt });
      expected.push({ ...read.state, by: `${stream}.state` });
      for (const [other, end] of Object.entries(read.others)) expected.push({ ...end, stream: other, by: stream });
    }
    // All that this database has seen of it is gone: what it is missing may be among that.
    const newest = Math.max(...marks.map(({ seenAt }) => Date.parse(seenAt)));
    if (marks.length > 0 && newest < keptSince && !marks.some(({ stream }) => ends.has(stream)))
      faults.push(
        new LedgerFault(
          'stream_missing',
          `the retention of ${this.folder} has removed all streams that the database knows`,
        ),
      );
    const unread = new Set(faults.length > 0 ? [...ends].flatMap(([id, end]) => (end.at === '' ? [id] : [])) : []);
    for (const { stream, sequence, at, by } of expected) {
      const end = ends.get(stream);
      if (unread.has(stream) || others.has(stream)) continue;
      if (!end && Date.parse(at) >= keptSince)
        faults.push(
          new LedgerFault('stream_missing', `stream ${stream}, which ${by} knows, is missing from ${this.folder}`),
        );
      if (end && end.sequence < sequence)
        faults.push(
          new LedgerFault(
            'cut',
            `stream ${stream} in ${this.folder} ends at ${end.sequence}, but ${by} has seen ${sequence} entries: its end was cut off`,
          ),
        );
    }
    const [last] = [...ends.values()]
      .flatMap(({ settledAt, peers: others }) => (settledAt === null ? [] : [{ settledAt, others }]))
      .sort((x, y) => (x.settledAt < y.settledAt ? 1 : -1));
    return {
      entries,
      faults,
      reachesTo: isStated ? (last?.settledAt ?? null) : null,
      isStated,
      lives,
      peers: last?.others ?? [],
      databases: [...databases],
    };
  }

  #attempt<T>(faults: LedgerFault[], work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof LedgerFault)) throw error;
      faults.push(error);
      return undefined;
    }
  }

  /** From the segment that contains the mark on. @returns null for a stream that was never begun */
  #readStream<Entry>(stream: string, numbers: readonly number[], mark: Mark | undefined, state: State | null) {
    const first = numbers[0]!;
    for (const [i, number] of numbers.entries())
      if (number !== first + i)
        throw new LedgerFault('segment_missing', `${segmentFile(stream, first + i)} is missing from ${this.folder}`);
    const segments: Segment<Entry>[] = [];
    for (const number of [...numbers].reverse()) {
      const segment = this.segment<Entry>(stream, number);
      if (!segment && number !== numbers.at(-1))
        throw new LedgerFault('changed', `${segmentFile(stream, number)} in ${this.folder} has no head`);
      if (!segment) continue;
      segments.unshift(segment);
      if (mark && segment.opening.sequence <= mark.sequence) break;
    }
    // A process that was killed while it began its stream leaves that without entries and without a state.
    if (!state && !mark && segments.every(({ end }) => end.sequence === 0)) return null;
    if (!state) throw new LedgerFault('state_missing', `${stream}.state is missing from ${this.folder}`);
    if (segments.length === 0)
      throw new LedgerFault('cut', `stream ${stream} in ${this.folder} is empty: its content was removed`);
    let others: Head['others'] = {};
    for (const [i, { head, opening, isTorn }] of segments.entries()) {
      const before = segments[i - 1]?.end;
      if (before && (before.sequence !== head.after.sequence || before.mac !== head.after.mac))
        throw new LedgerFault(
          'cut',
          `${segmentFile(stream, head.segment)} continues from entry ${head.after.sequence}, but the segment before it ends at ${before.sequence}`,
        );
      if (isTorn && i < segments.length - 1)
        throw new LedgerFault('changed', `the last line of ${segmentFile(stream, head.segment)} is incomplete`);
      if (opening.sequence === 0) others = head.others;
    }
    const oldest = segments[0]!;
    if (!mark && oldest.head.segment > 0 && oldest.head.after.sequence > 0)
      throw new LedgerFault(
        'segment_missing',
        `stream ${stream} in ${this.folder} begins in the middle: its first segments are missing`,
      );
    const all = segments.flatMap((segment) => segment.entries);
    const end = segments.at(-1)!.end;
    if (mark && mark.sequence <= end.sequence) {
      const there = all.find(({ sequence }) => sequence === mark.sequence)?.mac ?? null;
      const openings = segments
        .filter(({ opening }) => opening.sequence === mark.sequence)
        .map(({ opening, head }) => [opening.mac, head.after.mac]);
      if (![there, ...openings.flat()].includes(mark.mac))
        throw new LedgerFault(
          'mark',
          `entry ${mark.sequence} of stream ${stream} in ${this.folder} is not the one that the database has seen`,
        );
    }
    const behind = all.filter(({ sequence }) => !mark || sequence > mark.sequence);
    return { entries: behind.map(({ entry }: Placed<Entry>) => entry), end, state, others };
  }

  /** Streams last alive before it may have been removed, whatever the retention is now. */
  prunedBefore(): number {
    const states = [...this.streams().keys()].map((stream) => ifReadable(() => this.state(stream)));
    return Math.max(0, ...states.map((state) => state?.prunedBefore ?? 0));
  }

  /**
   * Removes streams that were last alive before a moment, other than one's own.
   * @param removing is called before, with when the last of them was alive; not when there are none
   * @returns how many files
   */
  prune(before: number, own: string, removing: (lastAt: number) => void): number {
    const old = [...this.streams()].flatMap(([stream, numbers]) => {
      const at = stream === own ? null : this.#aliveAt(stream, numbers);
      return at === null || at >= before ? [] : [{ stream, numbers, at }];
    });
    if (old.length > 0) removing(Math.max(...old.map(({ at }) => at)));
    let removed = 0;
    for (const { stream, numbers } of old) {
      // The newest first: what a kill leaves begins at its beginning.
      for (const name of [...numbers.map((number) => segmentFile(stream, number)).reverse(), `${stream}.state`]) {
        rmSync(path.join(this.folder, name), { force: true });
        removed++;
      }
    }
    return removed;
  }

  /** When a stream was last alive; of one without a state, when its file was written. Null: it cannot be read. */
  #aliveAt(stream: string, numbers: readonly number[]): number | null {
    return ifReadable(() => {
      const state = this.state(stream);
      return state ? Date.parse(state.at) : statSync(path.join(this.folder, segmentFile(stream, numbers[0]!))).mtimeMs;
    });
  }

  /** How far every stream reaches, for the head of a new one. Streams that cannot be read are left out. */
  ends(): Record<string, StreamEnd> {
    const ends: Record<string, StreamEnd> = {};
    for (const [stream, numbers] of this.streams()) {
      const end = ifReadable(() => {
        const [last, before] = [numbers.at(-1)!, numbers.at(-2)];
        const segment = this.segment(stream, last) ?? (before === undefined ? null : this.segment(stream, before));
        const state = this.state(stream);
        return segment && state ? { ...segment.end, at: state.at } : null;
      });
      if (end) ends[stream] = end;
    }
    return ends;
  }

  /** Begins a stream of one's own. */
  begin(stream: string): LedgerStream {
    return new LedgerStream(this, stream, this.key);
  }
}
