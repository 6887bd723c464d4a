import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  FieldTable,
  fieldValue,
  isClean,
  isToken,
  lengthOf,
  lists,
  readFields,
  withoutListed,
} from '../src/http/fields.js';
import { FIELDS_MAX, HeadScan, TOO_MANY } from '../src/http/scan.js';

const scan = new HeadScan();
/** Scans a head of these field lines. */
const scanned = (text: string) => scan.scan(Buffer.from(`x\r\n${text}\r\n`, 'latin1'), 0);

/** Reads field lines of which `x-taken` is taken. */
function read(text: string) {
  const taken: string[] = [];
  const table = new FieldTable((name) => (name === 'x-taken' ? 1 : 0));
  expect(scanned(text)).toBeGreaterThan(0);
  const passed = readFields(`x\r\n${text}`, scan, table, {
    field: (_, value) => {
      taken.push(value);
      return value === 'pass';
    },
  });
  return { passed, taken };
}

describe('a head has no character that programs read differently', () => {
  const controls = Array.from({ length: 32 }, (_, code) => code).filter((code) => ![0x09, 0x0a, 0x0d].includes(code));
  it.each([...controls, 0x7f])('control %i is refused', (code) => {
    expect(isClean(`a: b${String.fromCharCode(code)}c\r\n`)).toBe(false);
  });
  it.each([
    ['a bare LF', 'a: b\nc: d\r\n'],
    ['a bare CR', 'a: b\rc: d\r\n'],
    ['LF CR', 'a: b\n\rc: d\r\n'],
    ['CR CR LF', 'a: b\r\r\n'],
    ['CR LF LF', 'a: b\r\n\n'],
    ['a CR at the end', 'a: b\r'],
    ['a LF at the beginning', '\na: b\r\n'],
  ])('%s is refused', (_, text) => {
    expect(isClean(text)).toBe(false);
  });
  it.each([
    ['a tab', 'a: b\tc\r\n'],
    ['bytes above ASCII', 'a: \x80\x85\xa0\xff\r\n'],
    ['whole lines', 'a: b\r\nc: d\r\n'],
    ['nothing', ''],
  ])('%s is accepted', (_, text) => {
    expect(isClean(text)).toBe(true);
  });
});

describe('a name is a token', () => {
  it.each(['a', 'Content-Length', "!#$%&'*+-.^_`|~09azAZ"])('%s is one', (text) => {
    expect(isToken(text)).toBe(true);
  });
  it.each([
    '',
    ' ',
    'a ',
    ' a',
    'a\t',
    'a b',
    'a:',
    'a(b)',
    'a/b',
    '"a"',
    'a,b',
    '\xe4',
    '\xa0a',
    'a\0',
    'a\n',
    'a\r\n',
  ])('%j is none', (text) => {
    expect(isToken(text)).toBe(false);
  });
});

describe('field lines are read strictly', () => {
  it.each([
    ['white space before the colon', 'a : b\r\n'],
    ['a tab before the colon', 'a\t: b\r\n'],
    ['folding with a space', 'a: b\r\n c\r\n'],
    ['folding with a tab', 'a: b\r\n\tc\r\n'],
    ['folding with a colon', 'a: b\r\n c: d\r\n'],
    ['white space before the first name', ' a: b\r\n'],
    ['no colon', 'a\r\n'],
    ['no colon before the next line', 'a\r\nb: c\r\n'],
    ['no name', ': b\r\n'],
    ['a byte above ASCII in a name', 'a\xe4: b\r\n'],
    ['a quoted name', '"a": b\r\n'],
  ])('%s is malformed', (_, text) => {
    expect(read(text).passed).toMatchObject({ malformed: expect.any(String) });
  });

  it('what is not taken passes unchanged', () => {
    const text = "A:b\r\nc: \t d\t \r\ne:\r\nX'f: \xe4: :\r\n";
    expect(read(text)).toEqual({ passed: text, taken: [] });
  });

  it('what is taken passes only when its sink says so, whatever its case and place', () => {
    expect(read('x-taken: 1\r\na: b\r\nX-TAKEN:pass\r\nX-Taken:\t2 \t\r\nc: d\r\nx-taken:\r\n')).toEqual({
      passed: 'a: b\r\nX-TAKEN:pass\r\nc: d\r\n',
      taken: ['1', 'pass', '2', ''],
    });
  });

  it(`more than ${FIELDS_MAX} fields are too many, taken ones too`, () => {
    expect(read('a: b\r\n'.repeat(FIELDS_MAX)).passed).toHaveLength(6 * FIELDS_MAX);
    expect(scanned('a: b\r\n'.repeat(FIELDS_MAX + 1))).toBe(TOO_MANY);
    expect(read('x-taken: b\r\n'.repeat(FIELDS_MAX)).taken).toHaveLength(FIELDS_MAX);
  });

  it('a name is decided alike when it comes again, and when there were too many names to remember', () => {
    const table = new FieldTable((name) => (name === 'x-taken' ? 1 : 0));
    const actionOf = (name: string) => table.actionAt(name, 0, name.length);
    for (let i = 0; i < 5_000; i++) expect(actionOf(`X-${i}`)).toBe(0);
    for (let i = 0; i < 2; i++)
      expect([actionOf('X-Taken'), actionOf('X-0'), actionOf('X-4999'), actionOf('a b')]).toEqual([1, 0, 0, -1]);
  });

  it('names that are remembered keep neither the heads that they came in nor much memory', () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const heap = () => {
      collect();
      return process.memoryUsage().heapUsed / 1_000_000;
    };
    const table = new FieldTable(() => 0);
    const before = heap();
    for (let i = 0; i < 4_000; i++) {
      const line = `X-a-name-of-some-length-${i}: ${i % 2 === 0 ? 'v'.repeat(15_000) : ''}\r\n`;
      const long = `X-${'n'.repeat(15_000)}-${i}: \r\n`;
      // One flat string, as read from a socket.
      for (const text of [line, long]) {
        scanned(text);
        readFields(Buffer.from(`x\r\n${text}`).toString('latin1'), scan, table, { field: () => true });
      }
    }
    expect(heap() - before).toBeLessThan(10);
    expect(table.actionAt('X-a-name-of-some-length-0', 0, 25)).toBe(0);
  });
});

describe('values', () => {
  it('only spaces and tabs around a value are no part of it', () => {
    const value = (text: string) => fieldValue(text, 0, text.length);
    expect([value(' \t a b\t '), value(''), value(' '), value('\xa0a\x85'), value('a')]).toEqual([
      'a b',
      '',
      '',
      '\xa0a\x85',
      'a',
    ]);
  });

  it.each([
    ['0', 0],
    ['10', 10],
    ['007', 7],
    ['999999999999999', 999_999_999_999_999],
  ])('Content-Length %j is %i', (text, length) => {
    expect(lengthOf(text)).toBe(length);
  });
  it.each([
    '',
    '+1',
    '-1',
    '0x1',
    '1.0',
    '1e1',
    '1,1',
    '1, 1',
    '1 1',
    ' 1',
    '1 ',
    '1\n',
    '1\xa0',
    '1_0',
    '\u0661',
    '\xb2',
    'a',
    '"1"',
    '1;',
    '9999999999999999',
    '18446744073709551617',
  ])('Content-Length %j is no number', (text) => {
    expect(lengthOf(text)).toBe(-1);
  });

  it.each([
    ['close', true],
    ['CLOSE', true],
    ['x, Close', true],
    ['close,x', true],
    [' , close ,', true],
    ['closed', false],
    ['x close', false],
    ['x-close, y', false],
    ['', false],
  ])('the list %j contains close: %s', (list, expected) => {
    expect(lists(list, 'close')).toBe(expected);
  });

  it('Connection drops what it lists, in any case, but nothing that is kept', () => {
    const lines = 'X-Hop: 1\r\nx-hop: 2\r\nX-Hop-2: 3\r\nKept: 4\r\n';
    expect(withoutListed(lines, ' x-HOP , kept,,close', new Set(['kept']))).toBe('X-Hop-2: 3\r\nKept: 4\r\n');
    expect(withoutListed(lines, 'kept, ,', new Set(['kept']))).toBe(lines);
  });
});
