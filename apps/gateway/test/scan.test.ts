import { FIELDS_MAX, HeadScan, MALFORMED, TOO_MANY } from '../src/http/scan.js';

const scan = new HeadScan();
const of = (text: string, at = 0) => scan.scan(Buffer.from(text, 'latin1'), at);
const HEAD = 'GET / HTTP/1.1\r\nHost: a:1\r\nx\r\n\r\n';

it('a head ends behind its empty line, wherever it begins', () => {
  expect(of(HEAD)).toBe(HEAD.length);
  expect(of(`..${HEAD}..`, 2)).toBe(HEAD.length + 2);
  expect(scan.lines).toBe(3);
  expect([...scan.ends.slice(0, 3)]).toEqual([14, 25, 28]);
  expect([...scan.colons.slice(0, 3)]).toEqual([-1, 20, -1]);
});

it('a part of a head is incomplete, wherever it is cut', () => {
  for (let i = 0; i < HEAD.length; i++) expect(of(HEAD.slice(0, i))).toBe(0);
});

/** A scan of a text that comes in pieces: what each piece gives. */
function inPieces(text: string, sizes: readonly number[], at = 0): { results: number[]; scan: HeadScan } {
  const bytes = Buffer.from(text, 'latin1');
  const own = new HeadScan();
  const results: number[] = [];
  let to = at;
  for (let i = 0; to < bytes.length && (results.at(-1) ?? 0) === 0; i++) {
    to += sizes[i % sizes.length]!;
    const part = bytes.subarray(0, to);
    results.push(i === 0 ? own.scan(part, at) : own.resume(part));
    // Others use the same arrays' type, not the same arrays.
    of(HEAD);
  }
  return { results, scan: own };
}

it('a head that comes in pieces is read as one that is whole, wherever it is cut', () => {
  const heads = [HEAD, 'GET /:\t HTTP/1.1\r\nA:b:c\r\nD\t:\r\n\r\n'];
  for (const head of heads) {
    for (const at of [0, 2]) {
      const text = '..'.slice(0, at) + head;
      const whole = new HeadScan();
      expect(whole.scan(Buffer.from(text), at)).toBe(text.length);
      for (const sizes of [
        [1],
        [2],
        [3],
        [5],
        ...Array.from({ length: head.length }, (_, i) => [i + 1, head.length]),
      ]) {
        const { results, scan: own } = inPieces(text, sizes, at);
        expect([results.at(-1), own.lines, own.hasTab]).toEqual([text.length, whole.lines, whole.hasTab]);
        expect(own.ends.slice(0, own.lines)).toEqual(whole.ends.slice(0, own.lines));
        expect(own.colons.slice(0, own.lines)).toEqual(whole.colons.slice(0, own.lines));
      }
    }
  }
});

it('a head that comes in pieces is refused with the piece that is wrong', () => {
  for (const [text, at] of [
    ['GET / HTTP/1.1\r\nA: \0', 20],
    ['GET / HTTP/1.1\r\nA: b\n', 21],
    ['GET / HTTP/1.1\r\nA\rb', 19],
    ['\r\n', 2],
  ] as const) {
    const { results } = inPieces(`${text}more`, [1]);
    expect([results.length, results.at(-1)]).toEqual([at, MALFORMED]);
  }
  expect(inPieces(`x\r\n${'a: b\r\n'.repeat(FIELDS_MAX + 1)}`, [7]).results.at(-1)).toBe(TOO_MANY);
});

it('each byte of a head is looked at a bounded number of times, however small its pieces are', () => {
  let looks = 0;
  const bytes = new Proxy(Buffer.from(`GET / HTTP/1.1\r\nA: ${'b'.repeat(16_000)}\r\n\r\n`), {
    get: (target, name) => {
      if (typeof name === 'string' && /^\d+$/.test(name)) looks++;
      return Reflect.get(target, name, target);
    },
  });
  const own = new HeadScan();
  const { length } = bytes;
  let last = 0;
  for (let to = 1; to <= length; to++) {
    const part = new Proxy(bytes, { get: (target, name) => (name === 'length' ? to : Reflect.get(target, name)) });
    last = to === 1 ? own.scan(part, 0) : own.resume(part);
  }
  expect(last).toBe(length);
  expect(looks).toBeLessThan(6 * length);
});

const CONTROLS = Array.from({ length: 32 }, (_, code) => code).filter((code) => ![0x09, 0x0a, 0x0d].includes(code));
it.each([...CONTROLS, 0x7f])('control %d is malformed at once', (code) => {
  expect(of(`GET /${String.fromCharCode(code)}`)).toBe(MALFORMED);
});

it.each(['\n', 'GET / HTTP/1.1\n', 'a\rb', 'a\r\rb', 'a\r\n\rb', '\r\n', 'a\n\r\n'])('%j is malformed', (text) => {
  expect(of(`${text}x`)).toBe(MALFORMED);
});

it('all other bytes are text', () => {
  const text = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).filter((c) =>
    /[\t\x20-\x7e\x80-\xff]/.test(c),
  );
  const head = `${text.join('')}\r\n\r\n`;
  expect(of(head)).toBe(head.length);
  expect(scan.hasTab).toBe(true);
  of(HEAD);
  expect(scan.hasTab).toBe(false);
});

it(`${FIELDS_MAX} fields are read, and one more is too many`, () => {
  const head = (fields: number) => `x\r\n${'a: b\r\n'.repeat(fields)}\r\n`;
  expect(of(head(FIELDS_MAX))).toBe(head(FIELDS_MAX).length);
  expect(of(head(FIELDS_MAX + 1))).toBe(TOO_MANY);
});
