import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { newId } from '@latchkey/runtime';
import type { LedgerEntry } from '../src/ledger/entry.js';
import { LedgerFolder, type Mark } from '../src/ledger/folder.js';
import type { Place } from '../src/ledger/format.js';
import type { StreamRow } from '../src/ledger/ledger.queries.js';
import { type LedgerStream, SEGMENT_BYTES_MAX } from '../src/ledger/stream.js';
import type { LedgerComparison } from '../src/ledger/thread.js';
import { doubtOf } from '../src/ledger/vouching.js';

const KEY = Buffer.from('a key of the tests');
const OTHER_KEY = Buffer.from('another key');
const HISTORY = 'the history after the restore';

/** A stream of long ago. */
const OLD = '01000000-0000-7000-8000-000000000000';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function newFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'latchkey-ledger-'));
  folders.push(folder);
  return path.join(folder, 'ledger');
}

const entry = (t: number): LedgerEntry => ({ e: newId(), t, a: 'token.revoked', s: newId(), r: 'exposed' });
const at = (second: number) => new Date(1_800_000_000_000 + second * 1_000).toISOString();

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
  folder.writeState({ stream: stream.stream, ...stream.place, at: at(second), peers, ended: true });
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
  folder.writeState({ stream: earlier.stream, ...earlier.place, at: at(10), peers: [], ended: true });
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
  const { folder, faults, ...rest } = compare(made, marks);
  const { ledger, isComplete } = folder.identity;
  const own: LedgerComparison = {
    ...rest,
    ledger,
    folder: made.where,
    isOwn: true,
    isOriginal: folder.isOriginal,
    isComplete,
    faults: faults.map(({ code, message }) => ({ code, message })),
  };
  const rows = marks.map((mark) => rowOf(mark, ledger));
  return doubtOf(own, [...rows, ...others], {
    history: HISTORY,
    doubtedAt: null,
    own: { stream: newId(), isContinuous: false, hasGap: false, isPatient: false },
  });
}

const rowOf = (mark: Mark, ledger: string, compared: string | null = null): StreamRow => ({
  stream: mark.stream,
  ledger,
  sequence: String(mark.sequence),
  mac: mark.mac,
  history: 'another history',
  cursor_xid: '1',
  seen_at: new Date(mark.seenAt),
  compared_history: compared,
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
    folder.writeState({ stream: stream.stream, ...stream.place, at: at(1), peers: [], ended: false });
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
    folder.writeState({ stream: stream.stream, ...stream.place, at: at(1), peers: [], ended: false });
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
    folder.writeState({ stream: stream.stream, ...stream.place, at: at(1), peers: [], ended: false });
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
    expect(made.folder.prune(since, made.last.stream)).toBe(2);
    expect(existsSync(fileOf(made, made.earlier))).toBe(false);
    expect(made.folder.compare([], since)).toMatchObject({ faults: [], entries: made.entries.slice(6) });
  });
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
          at: at(10),
          peers: [],
          ended: true,
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

  it('another ledger that was alive at its own end may contain more, though the restored database does not know it', () => {
    const where = newFolder();
    const folder = LedgerFolder.open(where, KEY, newId);
    const stream = write(folder, [entry(1), entry(2)], 10, [other]);
    const made = { folder, where, earlier: stream, last: stream, marks: [markOf(stream, stream.place)], entries: [] };
    expect(doubt(made)).toBe('ledger_incomplete');
    expect(doubt(made, made.marks, [row(5, HISTORY)])).toBeNull();
  });

  const asOwn = (made: Made, since: Date | null): LedgerComparison => {
    const folder = LedgerFolder.existing(made.where, KEY)!;
    return {
      ...folder.compare<LedgerEntry>(made.marks, 0, { since: since?.getTime() ?? null }),
      ledger: folder.identity.ledger,
      folder: made.where,
      isOwn: true,
      isOriginal: true,
      isComplete: false,
      faults: [],
    };
  };
  const rowsOf = ({ folder, marks }: Made) => marks.map((mark) => rowOf(mark, folder.identity.ledger));
  const fresh = { stream: newId(), isContinuous: false, hasGap: false, isPatient: false };

  it('a process that was alive after a doubt arose, and has not settled it, does not settle it after a restart', () => {
    const made = make();
    const of = (doubtedAt: Date) =>
      doubtOf(
        asOwn(made, doubtedAt),
        rowsOf(made).map((row) => ({ ...row, stream: OLD })),
        {
          history: HISTORY,
          doubtedAt,
          own: fresh,
        },
      );
    expect(of(new Date(at(15)))).toBe('ledger_incomplete');
    // One that ended before, and was not there, still can.
    expect(of(new Date(at(21)))).toBeNull();
  });

  it('a process whose disk failed when a history ended vouches for none', () => {
    const made = make();
    const now = { history: HISTORY, doubtedAt: null };
    const own = { stream: made.earlier.stream, isContinuous: true, hasGap: false, isPatient: false };
    expect(doubtOf(asOwn(made, null), rowsOf(made), { ...now, own })).toBeNull();
    expect(doubtOf(asOwn(made, null), rowsOf(made), { ...now, own: { ...own, hasGap: true } })).toBe(
      'ledger_incomplete',
    );
  });
});
