import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { newId } from '@latchkey/runtime';
import { compareLedgers } from '../src/ledger/comparison.js';
import type { LedgerEntry } from '../src/ledger/entry.js';
import { ledgerWork } from '../src/ledger/files.js';
import { LedgerFolder, type Mark } from '../src/ledger/folder.js';
import { LedgerFault, type Place } from '../src/ledger/format.js';
import type { OwnLedger } from '../src/ledger/own-ledger.js';
import type { IgnoredLedger, LedgerStore, StreamRow } from '../src/ledger/store.js';
import { type LedgerStream, SEGMENT_BYTES_MAX } from '../src/ledger/stream.js';
import type { LedgerComparison } from '../src/ledger/thread.js';
import { doubtOf } from '../src/ledger/vouching.js';

const KEY = Buffer.from('a key of the tests');
const OTHER_KEY = Buffer.from('another key');
const DATABASE = newId();
const HISTORY = 'the history after the restore';

const folders: string[] = [];
const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function newFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'latchkey-ledger-'));
  folders.push(folder);
  return path.join(folder, 'ledger');
}

const entry = (t: number): LedgerEntry => ({ e: newId(), t, a: 'token.revoked', s: newId(), r: 'exposed' });
const at = (second: number) => new Date(1_800_000_000_000 + second * 1_000).toISOString();

/** That a stream was alive until then, in a settled history. */
function state(folder: LedgerFolder, { stream, place }: LedgerStream, second: number, peers: string[] = []): void {
  folder.writeState({ stream, ...place, begunAt: at(0), at: at(second), settledAt: at(second), peers });
}

/** A stream of one process: entries, then its state. */
function write(
  folder: LedgerFolder,
  entries: readonly LedgerEntry[],
  second: number,
  peers: string[] = [],
): LedgerStream {
  const stream = folder.begin(newId());
  stream.append([]);
  for (const one of entries) stream.append([one]);
  state(folder, stream, second, peers);
  return stream;
}

const markOf = (stream: LedgerStream, place: Place): Mark => ({ stream: stream.stream, ...place, seenAt: at(0) });

interface Made {
  folder: LedgerFolder;
  where: string;
  /** The stream before the last. */
  earlier: LedgerStream;
  last: LedgerStream;
  /** Of the earlier stream, in the middle of it: what a backup of then contains. */
  marks: Mark[];
  entries: LedgerEntry[];
}

/** A ledger with two streams of six entries each, and the mark of a backup made at the third. */
function make(): Made {
  const where = newFolder();
  const folder = LedgerFolder.open(where, KEY, newId);
  const entries = Array.from({ length: 12 }, (_, i) => entry(i));
  const earlier = folder.begin(newId());
  earlier.append([]);
  let mark: Place | undefined;
  for (const [i, one] of entries.slice(0, 6).entries()) {
    const place = earlier.append([one]);
    if (i === 2) mark = place;
  }
  state(folder, earlier, 10);
  const last = write(folder, entries.slice(6), 20);
  return { folder, where, earlier, last, marks: [markOf(earlier, mark!)], entries };
}

const fileOf = ({ where }: Made, stream: LedgerStream, suffix = '000000') =>
  path.join(where, `${stream.stream}.${suffix}`);

function rewrite(file: string, change: (lines: string[]) => string[]): void {
  writeFileSync(file, change(readFileSync(file, 'utf8').split('\n')).join('\n'));
}

/** As a process that has just started sees it. */
function compare(made: Made, marks = made.marks) {
  const folder = LedgerFolder.existing(made.where, KEY)!;
  return { folder, ...folder.compare<LedgerEntry>(marks, 0) };
}

/** Why it does not show that nothing is missing; null: it does. */
function doubt(made: Made, marks = made.marks, others: StreamRow[] = []) {
  const own = comparisonOf(made, marks);
  return doubtOf([own], [...marks.map((mark) => rowOf(mark, own.ledger)), ...others], here);
}

const here = { history: HISTORY, isContinuous: false, hasGap: false, isPatient: false };

function comparisonOf(made: Made, marks = made.marks): LedgerComparison {
  const { folder, faults, lives: _, databases: __, ...rest } = compare(made, marks);
  const { ledger, isComplete } = folder.identity;
  return {
    ...rest,
    ledger,
    name: ledger,
    aliveTo: 0,
    isUncertain: false,
    folder: made.where,
    isOwn: true,
    isKnown: true,
    isOriginal: folder.isOriginal,
    isComplete,
    faults: faults.map(({ code, message }) => ({ code, message })),
  };
}

const rowOf = (mark: Mark, ledger: string, compared: string | null = null): StreamRow => ({
  stream: mark.stream,
  ledger,
  sequence: String(mark.sequence),
  mac: mark.mac,
  history: 'another history',
  cursor_xid: '1',
  seen_at: new Date(mark.seenAt),
  settled_seen_at: new Date(mark.seenAt),
  compared_history: compared,
  is_settled: true,
  is_held: false,
});

describe('a ledger', () => {
  it('returns what lies behind the mark, of every stream, once it has authenticated it', () => {
    const made = make();
    const { entries, faults, reachesTo } = compare(made);
    expect(faults).toEqual([]);
    expect(entries).toEqual(made.entries.slice(3));
    expect(reachesTo).toBe(at(20));
    expect(doubt(made)).toBeNull();
  });

  it('without a mark returns everything', () => {
    expect(compare(make(), []).entries).toHaveLength(12);
  });

  it('continues in another segment, and reads only segments from that of the mark on', () => {
    const where = newFolder();
    const folder = LedgerFolder.open(where, KEY, newId);
    const stream = folder.begin(newId());
    const many = Array.from({ length: 4_000 }, (_, i) => entry(i));
    let mark: Place | undefined;
    for (let i = 0; i < 12_000; i += many.length) mark = stream.append(many);
    const late = entry(1);
    stream.append([late]);
    state(folder, stream, 1);
    expect(readdirSync(where).filter((name) => /\.\d{6}$/.test(name)).length).toBeGreaterThan(1);
    expect(readFileSync(path.join(where, `${stream.stream}.000000`)).length).toBeGreaterThan(SEGMENT_BYTES_MAX);
    writeFileSync(path.join(where, `${stream.stream}.000000`), 'unreadable, and not needed\n');
    const { entries, faults } = folder.compare([markOf(stream, mark!)], 0);
    expect([entries, faults]).toEqual([[late], []]);
  });

  it('notices that its first segment is missing, where no mark lies behind it', () => {
    const folder = LedgerFolder.open(newFolder(), KEY, newId);
    const stream = folder.begin(newId());
    const many = Array.from({ length: 7_000 }, (_, i) => entry(i));
    const first = stream.append(many);
    stream.append(many);
    const last = stream.append([entry(1)]);
    state(folder, stream, 1);
    rmSync(path.join(folder.folder, `${stream.stream}.000000`));
    expect(folder.compare([], 0).faults).toEqual([expect.objectContaining({ code: 'segment_missing' })]);
    expect(folder.compare([markOf(stream, first)], 0).faults).toEqual([]);
    expect(folder.compare([markOf(stream, last)], 0).faults).toEqual([]);
  });

  it('tolerates a last line whose write was interrupted: it was never acknowledged', () => {
    const made = make();
    const file = fileOf(made, made.last);
    writeFileSync(file, `${readFileSync(file, 'utf8')}7 AAAA {"e":"`);
    expect(compare(made).faults).toEqual([]);
    expect(compare(made).entries).toEqual(made.entries.slice(3));
  });

  it('tolerates a stream that was being begun when its process was killed', () => {
    const made = make();
    writeFileSync(path.join(made.where, `${newId()}.000000`), '');
    made.folder.begin(newId()).append([]);
    expect(doubt(made)).toBeNull();
  });

  it('appends all of what is given or nothing: what a failed write has left is overwritten', () => {
    const where = newFolder();
    const folder = LedgerFolder.open(where, KEY, newId);
    const stream = folder.begin(newId());
    const [first, second] = [entry(1), entry(2)];
    const place = stream.append([first]);
    const file = path.join(where, `${stream.stream}.000000`);
    writeFileSync(file, `${readFileSync(file, 'utf8')}2 half a li${'n'.repeat(1_000)}`);
    stream.append([second]);
    state(folder, stream, 1);
    expect(folder.compare([markOf(stream, place)], 0)).toMatchObject({ entries: [second], faults: [] });
  });

  it('is begun once by several processes at once', () => {
    const where = newFolder();
    const [one, other] = [1, 2].map(() => LedgerFolder.open(where, KEY, newId));
    expect(other!.identity).toEqual(one!.identity);
  });

  it('removes streams past their retention, and later streams that name them are still whole', () => {
    const made = make();
    const since = Date.parse(at(15));
    expect(made.folder.prune(since, made.last.stream, () => undefined)).toBe(2);
    expect(existsSync(fileOf(made, made.earlier))).toBe(false);
    expect(made.folder.compare([], since)).toMatchObject({ faults: [], entries: made.entries.slice(6) });
  });
});

/** A process that has opened a ledger, written entries to its own stream and said ten seconds later that it is alive. */
function processIn(where: string, second: number, entries: LedgerEntry[] = []) {
  const { work, close } = ledgerWork();
  closing.push(close);
  const stream = newId();
  work.open({ folder: where, key: KEY.toString(), database: DATABASE, ledger: newId(), stream, at: at(second) });
  const place = work.append({ entries });
  work.state({ begunAt: at(second), settledAt: at(second), peers: [], at: at(second + 10) });
  return { work, stream, place };
}

describe('a retention that is raised', () => {
  it('does not make a ledger look cut whose streams were removed before, and hides no other', () => {
    const made = make();
    const { work, stream, place } = processIn(made.where, 100, [entry(1)]);
    expect(work.prune({ before: Date.parse(at(75)) })).toBe(2);
    const { ledger } = made.folder.identity;
    const marks = [...made.marks, { stream, ledger, ...place, seenAt: at(10_000) }];
    // Another process, later.
    processIn(made.where, 110);
    expect(compare(made, marks)).toMatchObject({ faults: [], entries: made.entries.slice(6) });
    for (const suffix of ['000000', 'state']) rmSync(path.join(made.where, `${stream}.${suffix}`));
    expect(compare(made, marks).faults).toContainEqual(expect.objectContaining({ code: 'stream_missing' }));
  });
});

it('a retention that removed nothing hides nothing that is removed otherwise', () => {
  const made = make();
  const { work } = processIn(made.where, 100);
  expect(work.prune({ before: Date.parse(at(-1_000)) })).toBe(0);
  rmSync(fileOf(made, made.earlier));
  rmSync(path.join(made.where, `${made.earlier.stream}.state`), { force: true });
  expect(compare(made).faults).toContainEqual(expect.objectContaining({ code: 'stream_missing' }));
});

it('a ledger whose retention has removed all that the database knows of it does not vouch', () => {
  const made = make();
  const { work } = processIn(made.where, 200);
  expect(work.prune({ before: Date.parse(at(190)) })).toBeGreaterThan(0);
  const mark = {
    stream: made.earlier.stream,
    ledger: made.folder.identity.ledger,
    ...made.earlier.place,
    seenAt: at(10),
  };
  for (const retainedSince of [at(-1_000), at(190)]) {
    const { faults } = made.folder.compare([mark], Date.parse(retainedSince));
    expect(faults).toContainEqual(expect.objectContaining({ code: 'stream_missing' }));
  }
});

describe('tampering with a ledger or with its marks is noticed and named:', () => {
  const cutLines = (lines: string[], count: number) => [...lines.slice(0, -1 - count), ''];

  it.each<[string, string, (made: Made) => Mark[] | undefined]>([
    [
      'a byte of an entry is changed',
      'ledger_cut',
      (made) => {
        rewrite(fileOf(made, made.last), (lines) =>
          lines.map((line, i) => (i === 2 ? line.replace('exposed', 'expired') : line)),
        );
        return undefined;
      },
    ],
    [
      'an entry is removed from the middle',
      'ledger_cut',
      (made) => {
        rewrite(fileOf(made, made.last), (lines) => lines.toSpliced(3, 1));
        return undefined;
      },
    ],
    [
      'an entry is removed and the others are numbered anew',
      'ledger_cut',
      (made) => {
        rewrite(fileOf(made, made.last), (lines) =>
          lines.toSpliced(3, 1).map((line, i) => (i < 1 || line === '' ? line : line.replace(/^\d+/, String(i)))),
        );
        return undefined;
      },
    ],
    [
      'two entries change places',
      'ledger_cut',
      (made) => {
        rewrite(fileOf(made, made.last), (lines) => lines.toSpliced(2, 2, lines[3]!, lines[2]!));
        return undefined;
      },
    ],
    [
      'an entry of another stream is inserted',
      'ledger_cut',
      (made) => {
        const line = readFileSync(fileOf(made, made.earlier), 'utf8').split('\n')[2]!;
        rewrite(fileOf(made, made.last), (lines) => lines.toSpliced(2, 0, line));
        return undefined;
      },
    ],
    [
      'the end is cut off up to before the mark',
      'ledger_cut',
      (made) => {
        rewrite(fileOf(made, made.earlier), (lines) => cutLines(lines, 5));
        rmSync(fileOf(made, made.earlier, 'state'));
        return undefined;
      },
    ],
    [
      'the end is cut off behind the mark',
      'ledger_cut',
      (made) => {
        rewrite(fileOf(made, made.earlier), (lines) => cutLines(lines, 2));
        return undefined;
      },
    ],
    [
      'the end of an earlier stream is cut off, and its state is that of then',
      'ledger_cut',
      (made) => {
        const lines = readFileSync(fileOf(made, made.earlier), 'utf8').split('\n');
        rewrite(fileOf(made, made.earlier), (all) => cutLines(all, 2));
        const [sequence, mac] = lines[4]!.split(' ') as [string, string];
        made.folder.writeState({
          stream: made.earlier.stream,
          sequence: Number(sequence),
          mac,
          begunAt: at(0),
          at: at(10),
          settledAt: at(10),
          peers: [],
        });
        return undefined;
      },
    ],
    [
      'the end of the last stream is cut off',
      'ledger_cut',
      (made) => {
        rewrite(fileOf(made, made.last), (lines) => cutLines(lines, 1));
        return undefined;
      },
    ],
    [
      'a stream is removed that the database knows',
      'ledger_cut',
      (made) => {
        rmSync(fileOf(made, made.earlier));
        rmSync(fileOf(made, made.earlier, 'state'));
        return undefined;
      },
    ],
    [
      'a stream is removed that a later one knows',
      'ledger_cut',
      (made) => {
        rmSync(fileOf(made, made.earlier));
        rmSync(fileOf(made, made.earlier, 'state'));
        return [markOf(made.last, { sequence: 0, mac: '' })].slice(1);
      },
    ],
    [
      'the content of a stream is removed',
      'ledger_cut',
      (made) => {
        writeFileSync(fileOf(made, made.last), '');
        return undefined;
      },
    ],
    [
      'the state of a stream is removed',
      'ledger_cut',
      (made) => {
        rmSync(fileOf(made, made.last, 'state'));
        return undefined;
      },
    ],
    [
      "the state of one stream stands in another's place",
      'ledger_cut',
      (made) => {
        cpSync(fileOf(made, made.earlier, 'state'), fileOf(made, made.last, 'state'));
        return undefined;
      },
    ],
    [
      'the segment of one stream stands in the place of another',
      'ledger_cut',
      (made) => {
        cpSync(fileOf(made, made.earlier), fileOf(made, made.last));
        return undefined;
      },
    ],
    [
      'a first segment is missing',
      'ledger_cut',
      (made) => {
        renameSync(fileOf(made, made.last), fileOf(made, made.last, '000001'));
        return undefined;
      },
    ],
    ['the mark lies behind the end', 'ledger_cut', (made) => [markOf(made.earlier, { sequence: 9, mac: 'AAAA' })]],
    [
      'the mark names another entry than was written',
      'ledger_cut',
      (made) => [markOf(made.earlier, { sequence: 3, mac: 'AAAAAAAAAAAAAAAAAAAAAA' })],
    ],
    ['the marks are removed', 'ledger_incomplete', () => []],
    [
      'the folder is replaced by a copy of an older one',
      'ledger_copied',
      (made) => {
        const copy = `${made.where}-copy`;
        cpSync(made.where, copy, { recursive: true, preserveTimestamps: true });
        rmSync(made.where, { recursive: true });
        renameSync(copy, made.where);
        return undefined;
      },
    ],
  ])('%s', (_, reason, deed) => {
    const made = make();
    const marks = deed(made);
    expect(doubt(made, marks ?? made.marks)).toBe(reason);
    const { faults } = compare(made, marks ?? made.marks);
    if (reason === 'ledger_cut') {
      expect(faults.length).toBeGreaterThan(0);
      for (const { message } of faults) expect(message).toMatch(/[0-9a-f-]{36}/);
    }
  });

  it.each<[string, (made: Made) => void]>([
    [
      'it was written under another key',
      (made) => {
        const file = path.join(made.where, 'ledger');
        rmSync(made.where, { recursive: true });
        LedgerFolder.open(made.where, OTHER_KEY, newId);
        expect(existsSync(file)).toBe(true);
      },
    ],
    [
      'its identity is changed',
      (made) =>
        rewrite(path.join(made.where, 'ledger'), (lines) =>
          lines.map((line) => line.replace('"ledger":"0', '"ledger":"1')),
        ),
    ],
    ['its identity is removed', (made) => rmSync(path.join(made.where, 'ledger'))],
  ])('%s', (_, deed) => {
    const made = make();
    deed(made);
    expect(() => LedgerFolder.existing(made.where, KEY)).toThrow(/was changed, or LEDGER_KEY|is missing, though/);
  });
});

describe('a ledger shows that nothing else is missing only if it was the last to be alive:', () => {
  const other = newId();
  const row = (second: number, compared: string | null = null): StreamRow => ({
    ...rowOf({ stream: newId(), sequence: 1, mac: '', seenAt: at(second) }, other, compared),
  });

  it('another ledger that the database has seen later may contain more, until that is compared too', () => {
    const made = make();
    expect(doubt(made, made.marks, [row(19)])).toBeNull();
    expect(doubt(made, made.marks, [row(21)])).toBe('ledger_incomplete');
    expect(doubt(made, made.marks, [row(21, HISTORY)])).toBeNull();
  });

  it('one that lived on elsewhere does not speak for a backup of a time when another one was in use', () => {
    const made = make();
    // In use at 10 and until 20, and again for an hour after the other one had been.
    const own = { ...comparisonOf(made), reachesTo: at(3_600) };
    const rows = (second: number, compared: string | null = null) => [
      ...made.marks.map((mark) => rowOf(mark, own.ledger)),
      row(second, compared),
    ];
    expect(doubtOf([own], rows(1_000), here)).toBe('ledger_incomplete');
    expect(doubtOf([own], rows(1_000, HISTORY), here)).toBeNull();
    expect(doubtOf([own], rows(60), here)).toBeNull();
    // Nor does a process that has followed that database all the time.
    expect(doubtOf([own], rows(1_000), { ...here, isContinuous: true })).toBe('ledger_incomplete');
  });

  it('one that was in use until an outage speaks for what came before it at each examination, whatever its mark says by then', () => {
    const own = { ...comparisonOf(make()), reachesTo: at(3_600) };
    const mark = { stream: newId(), sequence: 1, mac: '', seenAt: at(3_700) };
    const inUse = { ...rowOf(mark, own.ledger, HISTORY), history: HISTORY, settled_seen_at: new Date(at(3_600)) };
    const retired = row(1_000);
    const before = rowOf({ ...mark, stream: newId(), seenAt: at(10) }, own.ledger);
    expect(doubtOf([own], [inUse, retired, before], here)).toBeNull();
    expect(doubtOf([own], [{ ...inUse, is_held: true }, retired, before], here)).toBeNull();
    expect(doubtOf([own], [{ ...inUse, settled_seen_at: new Date(at(10)) }, retired, before], here)).toBe(
      'ledger_incomplete',
    );
  });

  it('another ledger that was alive at its own end may contain more, though the restored database does not know it', () => {
    const where = newFolder();
    const folder = LedgerFolder.open(where, KEY, newId);
    const stream = write(folder, [entry(1), entry(2)], 10, [other]);
    const made = { folder, where, earlier: stream, last: stream, marks: [markOf(stream, stream.place)], entries: [] };
    expect(doubt(made)).toBe('ledger_incomplete');
    expect(doubt(made, made.marks, [row(5, HISTORY)])).toBeNull();
  });

  it('a process whose disk failed when a history ended vouches for none', () => {
    const made = make();
    const own = comparisonOf(made);
    const rows = made.marks.map((mark) => rowOf(mark, own.ledger));
    expect(doubtOf([own], rows, { ...here, isContinuous: true })).toBeNull();
    const left = { ...comparisonOf(make()), isOwn: false };
    const known = [...rows, rowOf({ stream: newId(), sequence: 1, mac: '', seenAt: at(10) }, left.ledger)];
    expect(doubtOf([own], rows, { ...here, isContinuous: true, hasGap: true })).toBe('ledger_incomplete');
    expect(doubtOf([own, left], known, { ...here, hasGap: true })).toBe('ledger_incomplete');
  });

  it('a process that has followed a history to its end waits for the others, and then vouches alone', () => {
    const made = make();
    const own = { ...comparisonOf(made), peers: [other] };
    const rows = made.marks.map((mark) => rowOf(mark, own.ledger));
    expect(doubtOf([own], rows, here)).toBe('ledger_incomplete');
    expect(doubtOf([own], rows, { ...here, isContinuous: true, isPatient: true })).toBe('ledger_incomplete');
    expect(doubtOf([own], rows, { ...here, isContinuous: true })).toBeNull();
  });

  it('that it was alive in a history that was not settled does not count, nor does a mark of one', () => {
    const made = make();
    const { stream, place } = made.last;
    made.folder.writeState({ stream, ...place, begunAt: at(0), at: at(30), settledAt: at(20), peers: [] });
    expect(comparisonOf(made).reachesTo).toBe(at(20));
    const own = comparisonOf(made);
    const rows = made.marks.map((mark) => ({ ...rowOf(mark, own.ledger), is_settled: false }));
    expect(doubtOf([own], rows, here)).toBe('ledger_incomplete');
  });

  it('one of a server that the database was moved to later must be whole, and the original', () => {
    const made = make();
    const own = comparisonOf(made);
    const rows = made.marks.map((mark) => rowOf(mark, own.ledger));
    const unknown = (reachesTo: string) => ({ ...comparisonOf(make()), isOwn: false, isKnown: false, reachesTo });
    const faults = [{ code: 'cut' as const, message: 'cut' }];
    expect(doubtOf([own, unknown(at(30))], rows, here)).toBeNull();
    expect(doubtOf([own, { ...unknown(at(30)), faults }], rows, here)).toBe('ledger_cut');
    expect(doubtOf([own, { ...unknown(at(30)), isOriginal: false }], rows, here)).toBe('ledger_copied');
    expect(doubtOf([own, { ...unknown(at(19)), faults }], rows, here)).toBeNull();
  });

  it('one that may be of a copy of the database leaves a doubt, but for a process that has followed this one to its end', () => {
    const made = make();
    const own = comparisonOf(made);
    const rows = made.marks.map((mark) => rowOf(mark, own.ledger));
    const faults = [{ code: 'uncertain' as const, message: 'in use at the same time' }];
    const uncertain = { ...comparisonOf(make()), isOwn: false, isKnown: false, isUncertain: true, faults };
    for (const reachesTo of [at(30), at(19)])
      expect(doubtOf([own, { ...uncertain, reachesTo }], rows, here)).toBe('ledger_uncertain');
    expect(doubtOf([own, { ...uncertain, reachesTo: at(30) }], rows, { ...here, isContinuous: true })).toBeNull();
  });

  it('one of a server that was left vouches neither for a damaged own one that the backup does not know, nor for its peers', () => {
    const left = { ...comparisonOf(make()), isOwn: false };
    const rows = [rowOf({ stream: newId(), sequence: 1, mac: '', seenAt: at(10) }, left.ledger)];
    const own = { ...comparisonOf(make()), reachesTo: at(50) };
    const faults = [{ code: 'cut' as const, message: 'cut' }];
    expect(doubtOf([own, left], rows, here)).toBeNull();
    expect(doubtOf([{ ...own, faults }, left], rows, here)).toBe('ledger_cut');
    expect(doubtOf([{ ...own, peers: [other] }, left], rows, here)).toBe('ledger_incomplete');
    expect(doubtOf([{ ...own, peers: [other] }, left], [...rows, row(5, HISTORY)], here)).toBeNull();
  });

  it('one whose last stream is damaged was alive as late as that: an older one does not speak for it', () => {
    const made = make();
    rewrite(fileOf(made, made.last), (lines) => lines.with(1, 'changed'));
    const damaged = { ...comparisonOf(made), isOwn: false };
    expect(damaged.reachesTo).toBe(at(20));
    const own = { ...comparisonOf(make()), reachesTo: at(15) };
    const rows = [own, damaged].map(({ ledger }) => rowOf({ ...made.marks[0]!, seenAt: at(1) }, ledger));
    expect(doubtOf([own, damaged], rows, here)).toBe('ledger_incomplete');
    writeFileSync(path.join(made.where, `${made.last.stream}.state`), 'nothing that was written');
    const unknown = { ...comparisonOf(made), isOwn: false };
    expect(unknown.reachesTo).toBeNull();
    expect(doubtOf([own, unknown], rows, here)).toBe('ledger_incomplete');
  });

  it('one that never was alive in a settled history, and lacks a stream, was alive as late as the others of its streams', () => {
    const made = make();
    rmSync(fileOf(made, made.earlier));
    rmSync(fileOf(made, made.earlier, 'state'));
    const { stream, place } = made.last;
    made.folder.writeState({ stream, ...place, begunAt: at(0), at: at(14), settledAt: null, peers: [] });
    const known = { ...comparisonOf(made), isOwn: false, aliveTo: Date.parse(at(14)) };
    expect(known).toMatchObject({ reachesTo: null, isStated: true, faults: [{}, {}] });
    const own = (second: number) => ({ ...comparisonOf(make()), reachesTo: at(second) });
    const asked = (one: LedgerComparison, ledger: LedgerComparison) => {
      const rows = [one, ledger].map((of) => rowOf({ ...made.marks[0]!, seenAt: at(1) }, of.ledger));
      return doubtOf([one, ledger], rows, here);
    };
    expect(asked(own(15), known)).toBeNull();
    expect(asked(own(13), known)).toBe('ledger_incomplete');
    rmSync(fileOf(made, made.last, 'state'));
    expect(asked(own(15), { ...comparisonOf(made), isOwn: false })).toBe('ledger_incomplete');
  });

  it.each([
    ['whose state is missing', (made: Made) => rmSync(fileOf(made, made.last, 'state'))],
    [
      'whose state is missing, and a segment with it',
      (made: Made) => {
        rmSync(fileOf(made, made.last, 'state'));
        rewrite(fileOf(made, made.last), (lines) => lines.with(1, 'changed'));
      },
    ],
    [
      'that cannot be listed',
      ({ where }: Made) => {
        const { streams } = LedgerFolder.prototype;
        closing.push(() => Object.assign(LedgerFolder.prototype, { streams }));
        LedgerFolder.prototype.streams = function () {
          if (this.folder === where) throw new LedgerFault('unreadable', 'it cannot be listed');
          return streams.call(this);
        };
      },
    ],
  ])('one %s can have been alive later than any other', (_, damage) => {
    const made = make();
    const marks = made.marks;
    damage(made);
    const known = { ...comparisonOf(made, marks), isOwn: false };
    expect(known).toMatchObject({ reachesTo: null, isStated: false });
    const own = { ...comparisonOf(make()), reachesTo: at(30) };
    const rows = [own, known].map(({ ledger }) => rowOf({ ...marks[0]!, seenAt: at(1) }, ledger));
    expect(doubtOf([own, known], rows, here)).toBe('ledger_incomplete');
  });

  it('one that was imported as complete does not speak for what the database has seen later', () => {
    const made = make();
    const complete = { ...comparisonOf(made), isOriginal: false, isComplete: true, peers: [] };
    const rows = made.marks.map((mark) => rowOf(mark, complete.ledger));
    expect(doubtOf([complete], rows, here)).toBeNull();
    // Nor for another server's, which went on when this one was stopped and copied.
    expect(doubtOf([{ ...complete, peers: [other] }], rows, here)).toBe('ledger_incomplete');
    expect(doubtOf([complete], [...rows, row(21)], here)).toBe('ledger_incomplete');
  });
});

it('streams of another database in the same folder are not read, unless this one knows them', () => {
  const made = make();
  const before = compare(made).entries.length;
  const stream = made.folder.begin(newId());
  const place = stream.append([entry(1), entry(2)]);
  const alive = { begunAt: at(30), at: at(40), settledAt: at(40), peers: [], database: newId() };
  made.folder.writeState({ stream: stream.stream, ...place, ...alive });
  write(made.folder, [entry(3)], 50);
  const of = (marks: Mark[]) => made.folder.compare<LedgerEntry>(marks, 0, DATABASE);
  expect(of(made.marks)).toMatchObject({ faults: [], entries: { length: before + 1 } });
  const known = { ...markOf(stream, place), sequence: 0, mac: '' };
  expect(compare(made, [...made.marks, known]).entries).toHaveLength(before + 3);
  rewrite(fileOf(made, stream), (lines) => lines.slice(0, 1).concat(''));
  expect(of(made.marks).faults).toEqual([]);
});

describe('with AUDIT_RETENTION_MONTHS, what the audit log lacks', () => {
  const DAY_MS = 86_400_000;
  const NOW_MS = Date.UTC(2030, 5, 20);
  const ago = (days: number) => NOW_MS - days * DAY_MS;

  /** What is missing from a database that has none of these events, by how many days ago they were. */
  async function missing(days: readonly number[], rows: readonly StreamRow[], settledHistory: string) {
    const entries = days.map((one) => entry(ago(one)));
    const ledgers = [{ ...comparisonOf(make()), entries }];
    const own = { compare: async () => ledgers, failure: null, ledger: 'own' } as unknown as OwnLedger;
    const store = {
      ignored: async () => [],
      lacking: async (some: readonly LedgerEntry[]) => new Set(some.map(({ e }) => e)),
    } as unknown as LedgerStore;
    const deps = { store, retention: { ledgerDays: 400, auditMonths: 1 }, clock: { wallMs: () => NOW_MS } };
    const standing = { history: HISTORY, settledHistory };
    const followed = { gap: null, isPatient: false, followedInto: undefined };
    const found = await compareLedgers(deps, own, rows, standing, followed);
    return found.missing.map(({ t }) => Math.round((NOW_MS - t) / DAY_MS));
  }
  const seen = (days: number, history: string): StreamRow => ({
    ...rowOf({ stream: newId(), sequence: 1, mac: '', seenAt: new Date(ago(days)).toISOString() }, newId()),
    history,
  });

  it('was deleted, if this database was alive later', async () => {
    expect(await missing([90, 60, 52, 2], [seen(100, 'earlier'), seen(1, 'earlier')], 'earlier')).toEqual([2]);
    expect(await missing([90, 60, 52, 2], [seen(1, HISTORY)], HISTORY)).toEqual([2]);
  });

  it('is missing, if it is later than the backup: what was done in a history that is not settled changes nothing', async () => {
    for (const since of [[], [seen(0, HISTORY)], [{ ...seen(0, 'held before'), is_held: true }]])
      expect(await missing([90, 60, 52, 2], [seen(70, 'earlier'), ...since], 'earlier')).toEqual([60, 52, 2]);
  });
});

describe('the ledgers beside the own one', () => {
  /** A base folder with the own ledger, opened by a process, and another server's, alive from one second to another. */
  function beside(from: number, to: number) {
    const base = newFolder();
    mkdirSync(base);
    const earlier = LedgerFolder.open(path.join(base, 'here'), KEY, newId, at(0));
    const first = earlier.begin(newId());
    const place = first.append([entry(1)]);
    earlier.writeState({ stream: first.stream, ...place, begunAt: at(0), at: at(100), settledAt: at(100), peers: [] });
    const there = LedgerFolder.open(path.join(base, 'there'), KEY, newId, at(from));
    const second = there.begin(newId());
    const end = second.append([entry(2)]);
    const alive = { begunAt: at(from), at: at(to), settledAt: at(to), peers: [], database: DATABASE };
    there.writeState({ stream: second.stream, ...end, ...alive });
    const { work, close } = ledgerWork();
    closing.push(close);
    work.open({
      folder: earlier.folder,
      key: KEY.toString(),
      database: DATABASE,
      ledger: newId(),
      stream: newId(),
      at: at(500),
    });
    work.append({ entries: [] });
    const mark = { ...markOf(first, place), ledger: earlier.identity.ledger };
    const given = { marks: [mark], retainedSince: 0, key: KEY.toString(), database: DATABASE };
    const compareAll = (isAll = false, ignored: IgnoredLedger[] = []) => work.compare({ ...given, isAll, ignored });
    return { base, earlier, there, second, work, compareAll };
  }

  it('of a server to which the database was moved, and from which it came back, are read without a mark', () => {
    const { compareAll, there } = beside(110, 400);
    const found = compareAll().find(({ isKnown }) => !isKnown);
    expect(found).toMatchObject({ ledger: there.identity.ledger, faults: [], entries: [{ t: 2 }] });
  });

  it('are those that were hardly in use together, however many processes were', () => {
    const { earlier, compareAll } = beside(60, 400);
    const replica = earlier.begin(newId());
    const place = replica.append([]);
    earlier.writeState({ stream: replica.stream, ...place, begunAt: at(0), at: at(90), settledAt: null, peers: [] });
    expect(compareAll().map(({ isKnown }) => isKnown)).toEqual([true, false]);
  });

  it('of a copy of the database that was in use at the same time are named, neither read nor adopted, until that is decided', () => {
    const { base, there, work, compareAll } = beside(10, 95);
    const uncertain = { ledger: there.identity.ledger, isKnown: false, isUncertain: true, entries: [] };
    expect(compareAll().find(({ isOwn }) => !isOwn)).toMatchObject({ ...uncertain, faults: [{ code: 'uncertain' }] });
    renameSync(there.folder, `${there.folder}.moved`);
    cpSync(`${there.folder}.moved`, there.folder, { recursive: true });
    rmSync(`${there.folder}.moved`, { recursive: true });
    compareAll();
    work.adopt({ ledger: newId(), stream: newId(), at: at(600), isAll: true });
    expect(readdirSync(base).sort()).toEqual(['here', 'there']);
    expect(LedgerFolder.existing(there.folder, KEY)!.isOriginal).toBe(false);
    const until = { name: there.identity.ledger, until: Date.parse(at(95)) };
    expect(compareAll(false, [until])).toHaveLength(1);
    // It was in use again since then.
    expect(compareAll(false, [{ ...until, until: until.until - 1 }])).toHaveLength(2);
  });

  it('one behind a link that leads nowhere is a ledger that cannot be read, not the end of the comparison', () => {
    const { base, compareAll } = beside(110, 400);
    const name = `imported-${newId()}`;
    symlinkSync(name, path.join(base, name));
    const found = compareAll().find((ledger) => ledger.name === name);
    expect(found).toMatchObject({ isKnown: false, isUncertain: true, faults: [{ code: 'unreadable' }] });
  });

  it('one that was imported is read, whenever it was in use', () => {
    const { there, compareAll } = beside(10, 95);
    there.declareImported(true);
    const found = compareAll().find(({ isOwn }) => !isOwn);
    expect(found).toMatchObject({ isUncertain: false, isComplete: true, faults: [], entries: [{ t: 2 }] });
  });

  it('one that is damaged counts only if it names this database, and is left where it is if it names none', () => {
    const { base, there, second, work, compareAll } = beside(110, 400);
    const alive = { begunAt: at(110), at: at(400), settledAt: at(400), peers: [] };
    const states = path.join(there.folder, `${second.stream}.state`);
    const ofOther = () => compareAll().filter(({ isOwn }) => !isOwn);
    there.writeState({ stream: second.stream, ...second.place, ...alive, database: newId() });
    rewrite(path.join(there.folder, `${second.stream}.000000`), (lines) => lines.slice(0, 1).concat(''));
    expect(ofOther()).toEqual([]);
    there.writeState({ stream: second.stream, ...second.place, ...alive, database: DATABASE });
    expect(ofOther()).toMatchObject([{ isUncertain: false, faults: [{ code: 'cut' }] }]);
    writeFileSync(states, 'nothing that was written here');
    expect(ofOther()).toMatchObject([{ isUncertain: true, faults: [{ code: 'foreign' }] }]);
    work.adopt({ ledger: newId(), stream: newId(), at: at(600), isAll: true });
    expect(readdirSync(base).sort()).toEqual(['here', 'there']);
  });

  it('one whose folder cannot be read is named; other things in the folder are not', () => {
    const { base, compareAll } = beside(110, 400);
    const names = ['7518000000000000001-latchkey', `imported-${newId()}`];
    for (const one of [...names, 'lost+found']) mkdirSync(path.join(base, one, 'ledger'), { recursive: true });
    writeFileSync(path.join(base, '7518000000000000002-latchkey.tgz'), 'a file');
    const file = '7518000000000000003-latchkey';
    writeFileSync(path.join(base, file), 'what is there while its folder is not');
    names.splice(1, 0, file);
    const found = (ignored: IgnoredLedger[] = []) =>
      compareAll(false, ignored).filter(({ faults }) => faults.length > 0);
    const unreadable = { isUncertain: true, faults: [{ code: 'unreadable' }] };
    expect(found()).toMatchObject(names.map((name) => ({ name, ...unreadable })));
    const ignored = (until: number) => names.map((name) => ({ name, until }));
    expect(found(ignored(Date.now() + 60_000))).toEqual([]);
    // It was written to since then.
    expect(found(ignored(0))).toHaveLength(3);
  });

  it('a stream is not continued for another database that takes the place of the first', () => {
    const { earlier, work } = beside(110, 400);
    const given = { folder: earlier.folder, key: KEY.toString(), ledger: newId(), at: at(700) };
    const open = (database: string) => work.open({ ...given, database, stream: newId() }).stream;
    const first = open(DATABASE);
    expect(open(DATABASE)).toBe(first);
    expect(open(newId())).not.toBe(first);
  });

  it('one that is not whole is set aside once it was decided, and a new one vouches from then on', () => {
    const { base, earlier, there, second, work, compareAll } = beside(110, 400);
    rewrite(path.join(there.folder, `${second.stream}.000000`), (lines) => lines.slice(0, 1).concat(''));
    const [own] = readdirSync(earlier.folder).filter((name) => name.endsWith('.000000'));
    rewrite(path.join(earlier.folder, own!), (lines) => lines.slice(0, 1).concat(''));
    expect(compareAll().flatMap(({ faults }) => faults.map(({ code }) => code))).toContain('cut');
    const { ledger } = work.adopt({ ledger: newId(), stream: newId(), at: at(600), isAll: true });
    expect(ledger).not.toBe(earlier.identity.ledger);
    // What can be read in the other one is needed by backups of its time.
    expect(readdirSync(base).sort()).toEqual(['here', expect.stringMatching(/^here\.from-\d+$/), 'there']);
    work.append({ entries: [] });
    const again = compareAll().find(({ isOwn }) => isOwn);
    expect(again).toMatchObject({ ledger, faults: [], isOriginal: true });
    const idsOf = (second: number) =>
      compareAll(false, [{ name: there.identity.ledger, until: Date.parse(at(second)) }]).map((one) => one.ledger);
    expect(idsOf(400)).not.toContain(there.identity.ledger);
    expect(idsOf(399)).toContain(there.identity.ledger);
  });

  it('one that was set aside is not read again, unless it was used since or is the own one once more', () => {
    const { earlier, work, compareAll } = beside(110, 400);
    const file = readdirSync(earlier.folder).find((name) => name.endsWith('.000000'))!;
    rewrite(path.join(earlier.folder, file), (lines) => lines.slice(0, 1).concat(''));
    const until = (second: number) => [{ name: earlier.identity.ledger, until: Date.parse(at(second)) }];
    const ledgers = (second: number) => compareAll(true, until(second)).map(({ ledger }) => ledger);
    expect(ledgers(600)).toContain(earlier.identity.ledger);
    work.adopt({ ledger: newId(), stream: newId(), at: at(600), isAll: true });
    work.append({ entries: [] });
    expect(ledgers(99)).toContain(earlier.identity.ledger);
    expect(ledgers(600)).not.toContain(earlier.identity.ledger);
  });

  it('of one that lacks what was revoked last, every process knows, until that is decided', () => {
    const { earlier, there, work, compareAll } = beside(110, 400);
    const other = ledgerWork();
    closing.push(other.close);
    const where = { folder: earlier.folder, key: KEY.toString(), database: DATABASE };
    other.work.open({ ...where, ledger: newId(), stream: newId(), at: at(500) });
    const ofOther = () =>
      other.work
        .compare({ ...where, marks: [], retainedSince: 0, ignored: [], isAll: true })
        .map(({ ledger, isOriginal }) => [ledger, isOriginal]);
    const ids = [earlier, there].map(({ identity }) => identity.ledger);
    compareAll();
    work.distrust({ ledger: ids[0]! });
    expect(ofOther()).toEqual([
      [ids[0], false],
      [ids[1], true],
    ]);
    work.distrust({ ledger: null });
    expect(ofOther().map(([, isOriginal]) => isOriginal)).toEqual([false, false]);
    // It was not imported: beside another one it is still one of another server.
    expect(LedgerFolder.existing(there.folder, KEY)!.identity.inode).not.toBe('');
    other.work.append({ entries: [] });
    other.work.adopt({ ledger: newId(), stream: newId(), at: at(600), isAll: true });
    expect(compareAll().map(({ isOriginal }) => isOriginal)).toEqual([true, true]);
  });

  it('of another database are not, though nothing of this one was ever settled', () => {
    const { there, second, compareAll } = beside(110, 400);
    const alive = { begunAt: at(110), at: at(400), settledAt: at(400), peers: [] };
    const unknown = (database: string) => {
      there.writeState({ stream: second.stream, ...second.place, ...alive, database });
      return [false, true].map((isAll) => compareAll(isAll).filter(({ isOwn }) => !isOwn).length);
    };
    expect(unknown(newId())).toEqual([0, 0]);
    expect(unknown(DATABASE)).toEqual([1, 1]);
  });

  /** A copied ledger beside an own one that is not whole. */
  function broken() {
    const made = beside(110, 400);
    const [own] = readdirSync(made.earlier.folder).filter((name) => name.endsWith('.000000'));
    rewrite(path.join(made.earlier.folder, own!), (lines) => lines.slice(0, 1).concat(''));
    LedgerFolder.existing(made.there.folder, KEY)!.declareImported(false);
    const identity = path.join(made.there.folder, 'ledger');
    /** While a folder is in its place, no other identity can be written. */
    const lock = () => {
      renameSync(identity, `${identity}.saved`);
      mkdirSync(identity);
    };
    const unlock = () => {
      rmSync(identity, { recursive: true });
      renameSync(`${identity}.saved`, identity);
    };
    return { ...made, lock, unlock };
  }

  it('one that cannot be adopted keeps no other from it, and no stream is begun for that', () => {
    const { earlier, there, work, compareAll, lock, unlock } = broken();
    const ids = () => ({ ledger: newId(), stream: newId(), at: at(600) });
    compareAll();
    lock();
    expect(() => work.adopt({ ...ids(), isAll: true })).toThrow(there.folder);
    const given = { folder: earlier.folder, key: KEY.toString(), database: DATABASE, ...ids() };
    const { ledger, stream } = work.open(given);
    expect(ledger).not.toBe(earlier.identity.ledger);
    work.append({ entries: [] });
    unlock();
    compareAll();
    lock();
    expect(() => work.adopt({ ...ids(), isAll: true })).toThrow(there.folder);
    expect(work.open({ ...given, ...ids() })).toEqual({ ledger, stream });
    expect(readdirSync(earlier.folder).filter((name) => name.endsWith('.000000'))).toEqual([`${stream}.000000`]);
  });

  it('of two processes of one ledger that is not whole, one begins the new one', () => {
    const { base, earlier, work, compareAll } = broken();
    const other = ledgerWork();
    closing.push(other.close);
    const given = {
      folder: earlier.folder,
      key: KEY.toString(),
      database: DATABASE,
      ledger: newId(),
      stream: newId(),
      at: at(500),
    };
    other.work.open(given);
    other.work.append({ entries: [] });
    other.work.compare({
      marks: [],
      retainedSince: 0,
      key: KEY.toString(),
      database: DATABASE,
      ignored: [],
      isAll: false,
    });
    compareAll();
    const first = work.adopt({ ledger: newId(), stream: newId(), at: at(600), isAll: true });
    const second = other.work.adopt({ ledger: newId(), stream: newId(), at: at(601), isAll: true });
    expect(second.ledger).toBe(first.ledger);
    expect(second.stream).not.toBe(first.stream);
    for (const one of [work, other.work]) one.append({ entries: [] });
    expect(readdirSync(base).filter((name) => name.startsWith('here'))).toHaveLength(2);
    expect(compareAll().find(({ isOwn }) => isOwn)).toMatchObject({ ledger: first.ledger, faults: [] });
  });

  it('a process whose folder has become another ledger writes nothing more into it', () => {
    const { earlier, work } = beside(110, 400);
    const state = { begunAt: at(500), at: at(510), settledAt: null, peers: [] };
    expect(work.state(state)).toBeNull();
    renameSync(earlier.folder, `${earlier.folder}.elsewhere`);
    expect(() => work.append({ entries: [entry(1)] })).toThrow(/has become that of another ledger/);
    expect(() => work.state(state)).toThrow(/has become that of another ledger/);
    LedgerFolder.open(earlier.folder, KEY, newId);
    expect(() => work.state(state)).toThrow(/has become that of another ledger/);
    expect(readdirSync(earlier.folder)).toEqual(['ledger']);
  });
});
