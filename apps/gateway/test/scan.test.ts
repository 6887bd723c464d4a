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
