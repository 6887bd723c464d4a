import { TRAILER_BYTES_MAX } from '../src/http/body.js';
import { type BodyReader, ChunkedBody, LengthBody, UntilCloseBody } from '../src/http/index.js';

const NEXT = 'GET / HTTP/1.1';

/** Reads a stream that is split at the given places: the content, what passes, and the bytes behind the end. */
function read(make: () => BodyReader, stream: string, cuts: number[] = []) {
  const [content, passing] = [make(), make()];
  const bytes = Buffer.from(stream, 'latin1');
  let [body, passed, at, rest] = ['', '', 0, ''];
  for (const cut of [...cuts, bytes.length]) {
    const part = bytes.subarray(at, cut);
    at = cut;
    if (content.complete) {
      rest += part.toString('latin1');
      continue;
    }
    const payload: number[] = [];
    const end = passing.read(part, 0);
    expect(Math.min(content.read(part, 0, payload), 0)).toBe(Math.min(end, 0));
    if (end < 0) return 'malformed';
    expect([content.complete, content.end]).toEqual([passing.complete, passing.end]);
    for (let i = 0; i < payload.length; i += 2) body += part.toString('latin1', payload[i], payload[i + 1]);
    passed += part.toString('latin1', 0, end);
    rest += part.toString('latin1', content.end);
  }
  return content.complete ? { body, passed: passed + passing.tail, rest } : { body, passed };
}

const chunked = (stream: string, cuts?: number[]) => read(() => new ChunkedBody(), stream, cuts);

/** Whole, split at every byte, and split in two at each byte. */
function everywhere(stream: string): unknown[] {
  const all = Array.from({ length: stream.length }, (_, i) => i);
  return [chunked(stream), chunked(stream, all), ...all.map((cut) => chunked(stream, [cut]))];
}

describe('a chunked body ends where its chunks say, wherever the stream is split', () => {
  it.each([
    ['no chunk', '0\r\n\r\n', '', '0\r\n\r\n'],
    ['one chunk', '3\r\nabc\r\n0\r\n\r\n', 'abc', '3\r\nabc\r\n0\r\n\r\n'],
    ['two chunks', '1\r\na\r\n2\r\nbc\r\n0\r\n\r\n', 'abc', '1\r\na\r\n2\r\nbc\r\n0\r\n\r\n'],
    [
      'sizes in both cases and with zeros',
      `00a\r\n${'x'.repeat(10)}\r\nA\r\n${'y'.repeat(10)}\r\n000\r\n\r\n`,
      'xxxxxxxxxxyyyyyyyyyy',
      undefined,
    ],
    ['content that looks like framing', 'a\r\n0\r\n\r\n1\r\na\r\r\n0\r\n\r\n', '0\r\n\r\n1\r\na\r', undefined],
    ['a trailer, which does not pass', '1\r\na\r\n0\r\nX-T: b\r\n\r\n', 'a', '1\r\na\r\n0\r\n\r\n'],
    ['several trailers', '0\r\nA: b\r\nC:\r\nD: e\t f \xe4\r\n\r\n', '', '0\r\n\r\n'],
  ])('%s', (_, stream, body, passed = stream) => {
    for (const got of everywhere(stream + NEXT)) expect(got).toEqual({ body, passed, rest: NEXT });
  });
});

describe('malformed chunks are refused, wherever the stream is split', () => {
  it.each([
    ['an empty size', '\r\n'],
    ['no hexadecimal digit', 'g\r\n'],
    ['a sign', '+1\r\na\r\n0\r\n\r\n'],
    ['a negative size', '-1\r\na\r\n0\r\n\r\n'],
    ['0x', '0x1\r\na\r\n0\r\n\r\n'],
    ['a space before the size', ' 1\r\na\r\n0\r\n\r\n'],
    ['a space behind the size', '1 \r\na\r\n0\r\n\r\n'],
    ['a tab behind the size', '1\t\r\na\r\n0\r\n\r\n'],
    ['an extension', '1;a=b\r\na\r\n0\r\n\r\n'],
    ['an empty extension', '1;\r\na\r\n0\r\n\r\n'],
    ['an extension of the last chunk', '0;a\r\n\r\n'],
    ['a size of 13 digits', '0000000000001\r\na\r\n0\r\n\r\n'],
    ['a size past 64 bits', '10000000000000001\r\na\r\n0\r\n\r\n'],
    ['a bare LF behind the size', '1\na\r\n0\r\n\r\n'],
    ['a bare CR behind the size', '1\ra\r\n0\r\n\r\n'],
    ['CR CR LF behind the size', '1\r\r\na\r\n0\r\n\r\n'],
    ['NUL behind the size', '1\0\r\na\r\n0\r\n\r\n'],
    ['a chunk longer than its size', '1\r\nab\r\n0\r\n\r\n'],
    ['a chunk shorter than its size', '3\r\nab\r\n0\r\n\r\n'],
    ['a bare LF behind a chunk', '1\r\na\n0\r\n\r\n'],
    ['a bare CR behind a chunk', '1\r\na\r0\r\n\r\n'],
    ['nothing behind a chunk', '1\r\na0\r\n\r\n'],
    ['a bare LF behind the last chunk', '0\n\r\n'],
    ['a bare LF as the end', '0\r\n\n'],
    ['a bare LF behind a trailer', '0\r\nA: b\n\r\n'],
    ['a bare CR in a trailer', '0\r\nA: b\rC: d\r\n\r\n'],
    ['NUL in a trailer', '0\r\nA: \0\r\n\r\n'],
    ['a trailer without a colon', '0\r\nA\r\n\r\n'],
    ['a trailer without a name', '0\r\n: b\r\n\r\n'],
    ['white space before the colon of a trailer', '0\r\nA : b\r\n\r\n'],
    ['a folded trailer', '0\r\nA: b\r\n c: d\r\n\r\n'],
    ['white space before a trailer', '0\r\n A: b\r\n\r\n'],
    ['Content-Length in a trailer', '0\r\nContent-Length: 3\r\n\r\n'],
    ['Transfer-Encoding in a trailer', '0\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n'],
    ['Host in a trailer', '0\r\nHOST: h\r\n\r\n'],
    ['a request in place of the trailer', `0\r\n${NEXT}\r\n\r\n`],
  ])('%s', (_, stream) => {
    for (const got of everywhere(stream)) expect(got).toBe('malformed');
  });

  it('a trailer section that is too long, also before its end', () => {
    const long = `A: ${'b'.repeat(TRAILER_BYTES_MAX)}`;
    const fits = `A: ${'b'.repeat(TRAILER_BYTES_MAX - 5)}`;
    expect([
      chunked(`0\r\n${long}\r\n\r\n`),
      chunked(`0\r\n${long}`),
      chunked(`0\r\n${'A: b\r\n'.repeat(3_000)}`),
    ]).toEqual(Array(3).fill('malformed'));
    expect(chunked(`0\r\n${long}\r\n\r\n`, [100, 10_000, 16_000])).toBe('malformed');
    expect(chunked(`0\r\n${fits}\r\n\r\n${NEXT}`)).toMatchObject({ rest: NEXT });
  });

  it('a cut stream is not complete, at any byte', () => {
    const stream = '3\r\nabc\r\n0\r\nA: b\r\n\r\n';
    for (let end = 0; end < stream.length; end++) expect(chunked(stream.slice(0, end))).not.toHaveProperty('rest');
  });
});

describe('a body of known length', () => {
  it('ends after as many bytes, wherever the stream is split', () => {
    const stream = `a\r\n\0${NEXT}`;
    for (let cut = 0; cut <= stream.length; cut++)
      expect(read(() => new LengthBody(4), stream, [cut])).toEqual({ body: 'a\r\n\0', passed: 'a\r\n\0', rest: NEXT });
    expect(read(() => new LengthBody(4), 'abc')).toEqual({ body: 'abc', passed: 'abc' });
  });
});

it('a trailer that comes byte by byte costs what it costs as a whole', () => {
  const body = new ChunkedBody();
  const stream = Buffer.from(`0\r\n${'A: b\r\n'.repeat(2_500)}\r\n`);
  let searched = 0;
  const { test } = RegExp.prototype;
  try {
    RegExp.prototype.test = function (this: RegExp, text: string) {
      searched += text.length;
      return test.call(this, text);
    };
    for (let at = 0; at < stream.length; at++) body.read(stream.subarray(at, at + 1), 0);
  } finally {
    RegExp.prototype.test = test;
  }
  expect(body.complete).toBe(true);
  expect(searched).toBeLessThan(6 * stream.length);
});

describe('a body until the connection closes', () => {
  it('never ends by itself', () => {
    expect(read(() => new UntilCloseBody(), '0\r\n\r\n', [1, 3])).toEqual({ body: '0\r\n\r\n', passed: '0\r\n\r\n' });
  });
});
