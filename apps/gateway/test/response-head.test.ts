import { HeadScan, ResponseHead, type ResponsePolicy } from '../src/http/index.js';

const POLICY: ResponsePolicy = { trustedOrigin: false, maySetSession: false, ownCors: false };
const OK = 'HTTP/1.1 200 OK';

const scan = new HeadScan();

function read(lines: string[], method = 'GET') {
  const text = lines.map((line) => `${line}\r\n`).join('');
  if (scan.scan(Buffer.from(`${text}\r\n`, 'latin1'), 0) < 0) return { malformed: 'by its bytes' };
  return ResponseHead.read(text, scan, method, POLICY);
}
const MALFORMED = { malformed: expect.any(String) };

describe('the end of a response is unambiguous', () => {
  it.each<[string, string[], string, object]>([
    ['a length', [OK, 'Content-Length: 5'], 'GET', { framing: 'length', contentLength: 5, keepsOpen: true }],
    ['length 0', [OK, 'Content-Length: 0'], 'GET', { framing: 'none', contentLength: 0, keepsOpen: true }],
    ['chunks', [OK, 'Transfer-Encoding: Chunked'], 'GET', { framing: 'chunked', contentLength: -1, keepsOpen: true }],
    ['the end of the connection', [OK], 'GET', { framing: 'close', keepsOpen: false }],
    ['HEAD with a length', [OK, 'Content-Length: 5'], 'HEAD', { framing: 'none', contentLength: 5, keepsOpen: true }],
    ['HEAD with chunks', [OK, 'Transfer-Encoding: chunked'], 'HEAD', { framing: 'none', contentLength: -1 }],
    ['HEAD without a length', [OK], 'HEAD', { framing: 'none', keepsOpen: true }],
    [
      '304 with a length',
      ['HTTP/1.1 304 Not Modified', 'Content-Length: 5'],
      'GET',
      { framing: 'none', contentLength: 5 },
    ],
    ['204', ['HTTP/1.1 204 No Content'], 'GET', { framing: 'none', keepsOpen: true }],
    [
      '204 with length 0',
      ['HTTP/1.1 204 No Content', 'Content-Length: 0'],
      'GET',
      { framing: 'none', contentLength: -1, keepsOpen: true },
    ],
    [
      '204 with a length, behind which a body could come',
      ['HTTP/1.1 204 No Content', 'Content-Length: 5'],
      'GET',
      { framing: 'none', contentLength: -1, keepsOpen: false },
    ],
    [
      'an interim response',
      ['HTTP/1.1 103 Early Hints', 'Content-Length: 5'],
      'GET',
      { framing: 'none', contentLength: -1 },
    ],
    ['HTTP/1.0', ['HTTP/1.0 200 OK', 'Content-Length: 5'], 'GET', { framing: 'length', keepsOpen: false }],
    [
      'HTTP/1.0 kept open',
      ['HTTP/1.0 200 OK', 'Content-Length: 5', 'Connection: x, Keep-Alive'],
      'GET',
      { keepsOpen: true },
    ],
    [
      'Connection: close',
      [OK, 'Content-Length: 5', 'Connection: x', 'Connection: Close'],
      'GET',
      { framing: 'length', keepsOpen: false },
    ],
  ])('%s', (_, lines, method, expected) => {
    expect(read(lines, method)).toMatchObject(expected);
  });

  it.each<[string, string[]]>([
    ['Content-Length twice', [OK, 'Content-Length: 5', 'Content-Length: 5']],
    ['both', [OK, 'Content-Length: 5', 'Transfer-Encoding: chunked']],
    ['both, for 304', ['HTTP/1.1 304 x', 'Content-Length: 5', 'Transfer-Encoding: chunked']],
    ['chunked twice', [OK, 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked']],
    ['an empty coding', [OK, 'Transfer-Encoding:']],
    ['an empty coding before chunked', [OK, 'Transfer-Encoding:', 'Transfer-Encoding: chunked']],
    ['an empty coding behind chunked', [OK, 'Transfer-Encoding: chunked', 'Transfer-Encoding:']],
    ['an empty length', [OK, 'Content-Length:']],
    ['chunks in HTTP/1.0', ['HTTP/1.0 200 OK', 'Transfer-Encoding: chunked']],
    ['chunks with 204', ['HTTP/1.1 204 x', 'Transfer-Encoding: chunked']],
    ['chunks with 101', ['HTTP/1.1 101 x', 'Transfer-Encoding: chunked']],
    ...['identity', 'gzip, chunked', 'chunked, gzip', 'chunked,', 'xchunked', '"chunked"', '\xa0chunked'].map(
      (coding): [string, string[]] => [`the coding ${JSON.stringify(coding)}`, [OK, `Transfer-Encoding: ${coding}`]],
    ),
    ...['+5', '-5', '5,5', '5, 5', '0x5', '5.0', '5 5', '9999999999999999', 'a'].map((length): [string, string[]] => [
      `the length ${length}`,
      [OK, `Content-Length: ${length}`],
    ]),
  ])('%s is malformed', (_, lines) => {
    expect(read(lines)).toEqual(MALFORMED);
    expect(read(lines, 'HEAD')).toEqual(MALFORMED);
  });

  it.each([
    'Content-Length:\t5',
    'Content-Length: 5\t',
    'Transfer-Encoding: chunked \t ',
    'Transfer-Encoding: \tchunked',
    'Connection: close\t',
  ])('a tab around the value is malformed, because it is a part of the value for some programs: %j', (line) => {
    expect(read([OK, line])).toEqual(MALFORMED);
    expect(read([OK, 'A: b', line, 'C:\td'])).toEqual(MALFORMED);
    expect(read([OK, 'Content-Type:\ta/b\t', 'Content-Length: 5'])).toMatchObject({ framing: 'length' });
  });

  it('framing and what is between two neighbours do not pass', () => {
    const head = read([
      OK,
      'A: b',
      'Content-Length: 5',
      'Connection: x-hop',
      'X-Hop: 1',
      'Keep-Alive: timeout=7',
      'Upgrade: x',
      'Trailer: y',
      'C: d',
    ]);
    expect(head).toMatchObject({ lines: 'A: b\r\nC: d\r\n', keepAliveS: 7 });
  });

  it.each(['Content-Type: a/b', 'Content-Encoding: gzip', 'Date: Tue, 01 Jan 2030', 'Set-Cookie: a=b'])(
    'Connection cannot drop what the message is: %s',
    (line) => {
      const name = line.slice(0, line.indexOf(':'));
      expect(read([OK, line, `Connection: x, ${name}`])).toMatchObject({ lines: `${line}\r\n` });
    },
  );

  it('Connection cannot drop the length', () => {
    expect(read([OK, 'Content-Length: 5', 'Connection: content-length'])).toMatchObject({
      framing: 'length',
      contentLength: 5,
    });
  });
});

describe('the status line is read strictly', () => {
  it.each([
    ['HTTP/1.1 200 OK', 200, 'OK'],
    ['HTTP/1.0 404 Not  Found', 404, 'Not  Found'],
    ['HTTP/1.1 200 ', 200, ''],
    ['HTTP/1.1 200', 200, ''],
    ['HTTP/1.1 999 caf\xe9\t!', 999, 'caf\xe9\t!'],
  ])('%j', (line, status, reason) => {
    expect(read([line])).toMatchObject({ status, reason });
  });
  it.each([
    '',
    ' HTTP/1.1 200 OK',
    'HTTP/1.1  200 OK',
    'HTTP/1.1\t200 OK',
    'HTTP/1.1 20 OK',
    'HTTP/1.1 2000 OK',
    'HTTP/1.1 099 OK',
    'HTTP/1.1 2OO OK',
    'HTTP/1.1 +20 OK',
    'HTTP/1.1 200OK',
    'HTTP/1.1 200\tOK',
    'HTTP/1.2 200 OK',
    'HTTP/2 200 OK',
    'HTTP/1.10 200 OK',
    'http/1.1 200 OK',
    'ICY 200 OK',
    'HTTP/1.1 200 O\0K',
    'HTTP/1.1 200 O\rK',
    'HTTP/1.1 200 O\nK',
    'HTTP/1.1 200 O\x0bK',
    'HTTP/1.1 200 O\x7fK',
    'GET / HTTP/1.1',
    '200 OK',
  ])('%j is malformed', (line) => {
    expect(read([line, 'Content-Length: 0'])).toEqual(MALFORMED);
  });
});

describe('a response cannot be split', () => {
  it.each(['A: b\rC: d', 'A: b\nC: d', 'A: b\0', 'A: \x0b', ' A: b', '\tA: b', 'A : b', 'A', ': b', 'A\xe4: b'])(
    '%j is malformed',
    (line) => {
      expect(read([OK, line, 'Content-Length: 0'])).toEqual(MALFORMED);
      expect(read([OK, 'Content-Length: 0', line])).toEqual(MALFORMED);
    },
  );
});
