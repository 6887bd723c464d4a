import { randomUUID } from 'node:crypto';
import { forwardedLines, HeadScan, type Peer, RequestHead } from '../src/http/index.js';
import { OWN_NAME } from '../src/http/request-fields.js';

const PEER: Peer = { ip: '192.0.2.1', trusted: false, isTrusted: () => false };
const LINE = 'POST /a HTTP/1.1';

const scan = new HeadScan();

const read = (...lines: string[]) => readFrom(PEER, ...lines);

function readFrom(peer: Peer, ...lines: string[]): RequestHead | string {
  const head = new RequestHead(peer);
  const text = lines.map((line) => `${line}\r\n`).join('');
  if (scan.scan(Buffer.from(`${text}\r\n`, 'latin1'), 0) < 0) return 'malformed';
  const error = head.read(text, scan);
  return error ? `${error.code}: ${error.detail}` : head;
}

const framingOf = (head: RequestHead | string) =>
  typeof head === 'string' ? 'refused' : head.chunked ? 'chunked' : head.contentLength;

describe('the framing of a request is unambiguous', () => {
  it.each<[string, string[], unknown]>([
    ['no field', [], -1],
    ['Content-Length', ['Content-Length: 5'], 5],
    ['Content-Length with spaces around', ['content-length:   5  '], 5],
    ['Content-Length 0', ['CONTENT-LENGTH:0'], 0],
    ['chunked', ['Transfer-Encoding: chunked'], 'chunked'],
    ['chunked in capitals', ['TRANSFER-ENCODING:CHUNKED'], 'chunked'],
    ['Content-Length is not dropped by Connection', ['Connection: content-length', 'Content-Length: 5'], 5],
    [
      'chunked is not dropped by Connection',
      ['Connection: transfer-encoding', 'Transfer-Encoding: chunked'],
      'chunked',
    ],
    [
      'a name that only resembles one is no framing',
      ['Content_Length: 5', 'Transfer.Encoding: chunked', 'X-Content-Length: 6'],
      -1,
    ],
  ])('%s is accepted', (_, lines, framing) => {
    expect(framingOf(read(LINE, 'Host: g', ...lines))).toBe(framing);
  });

  it.each<[string, string[]]>([
    ['Content-Length twice', ['Content-Length: 5', 'Content-Length: 5']],
    ['Content-Length twice in other spellings', ['Content-Length: 5', 'content-length: 6']],
    ['Content-Length and chunked', ['Content-Length: 5', 'Transfer-Encoding: chunked']],
    ['chunked and Content-Length', ['Transfer-Encoding: chunked', 'Content-Length: 5']],
    ['Content-Length empty', ['Content-Length:']],
    ['an empty Content-Length before another', ['Content-Length:', 'Content-Length: 5']],
    ['chunked twice', ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked']],
    ['Transfer-Encoding empty', ['Transfer-Encoding:']],
    ['an empty Transfer-Encoding before chunked', ['Transfer-Encoding:', 'Transfer-Encoding: chunked']],
    ['an empty Transfer-Encoding with a length', ['Transfer-Encoding:', 'Content-Length: 5']],
    ...[
      'identity',
      'gzip',
      'gzip, chunked',
      'chunked, gzip',
      'chunked, chunked',
      'chunked,',
      ',chunked',
      'chunked;a=b',
      '"chunked"',
      'xchunked',
      'chunkedx',
      'chunk',
      '\xa0chunked',
      'chunked\xa0',
      'chunked chunked',
      'chun ked',
    ].map((coding): [string, string[]] => [`the coding ${JSON.stringify(coding)}`, [`Transfer-Encoding: ${coding}`]]),
    ...['-1', '+1', '1,1', '0x1', '1 1', '1.0', 'a', '9999999999999999'].map((length): [string, string[]] => [
      `the length ${length}`,
      [`Content-Length: ${length}`],
    ]),
  ])('%s is refused', (_, lines) => {
    expect(framingOf(read(LINE, 'Host: g', ...lines))).toBe('refused');
  });

  it.each([
    'Content-Length:\t5',
    'Content-Length: 5\t',
    'Content-Length: \t 5',
    'content-length: 5 \t ',
    'Transfer-Encoding:\tchunked',
    'TRANSFER-ENCODING: chunked\t',
    'Connection: close\t',
    'Connection:\tclose',
  ])('a tab around the value is refused, because it is a part of the value for some programs: %j', (line) => {
    expect(framingOf(read(LINE, 'Host: g', line))).toBe('refused');
    expect(framingOf(read(LINE, line, 'A: b', 'Host: g'))).toBe('refused');
  });

  it('tabs elsewhere are accepted', () => {
    expect(read(LINE, 'Host: g', 'A:\tb\tc\t', 'Content-Length: 5')).toMatchObject({
      contentLength: 5,
      passed: 'A:\tb\tc\t\r\n',
    });
    for (const host of ['\tg', 'g\t']) expect(read(LINE, `Host:${host}`)).toEqual(expect.any(String));
  });

  it('HTTP/1.0 has a length but no chunks, and its connection closes', () => {
    expect(framingOf(read('POST /a HTTP/1.0', 'Transfer-Encoding: chunked'))).toBe('refused');
    expect(read('POST /a HTTP/1.0', 'Content-Length: 5', 'Connection: keep-alive')).toMatchObject({
      contentLength: 5,
      closes: true,
    });
  });

  it('framing, Host and Connection do not pass', () => {
    expect(
      read(
        LINE,
        'Host: g',
        'A: b',
        'Connection: c, close',
        'Content-Length: 5',
        'C: d',
        'E: f',
        'Content_Length: 6',
        'transfer_encoding: x',
      ),
    ).toMatchObject({ passed: 'A: b\r\nE: f\r\n', closes: true });
  });
});

describe('the first line is read strictly', () => {
  it.each([
    ['GET /a HTTP/1.1', 'GET', '/a', 1],
    ['M-SEARCH * HTTP/1.0', 'M-SEARCH', '*', 0],
    ['PROPFIND /a?b=%20 HTTP/1.1', 'PROPFIND', '/a?b=%20', 1],
  ])('%s', (line, method, target, minorVersion) => {
    expect(read(line, 'Host: g')).toMatchObject({ method, target, minorVersion });
  });

  it.each([
    '',
    ' ',
    'GET',
    'GET /a',
    'GET  HTTP/1.1',
    'GET  /a HTTP/1.1',
    'GET /a  HTTP/1.1',
    ' GET /a HTTP/1.1',
    'GET /a HTTP/1.1 ',
    'GET\t/a HTTP/1.1',
    'GET /a\tHTTP/1.1',
    'GET /a b HTTP/1.1',
    'GET /a HTTP/1.2',
    'GET /a HTTP/2.0',
    'GET /a HTTP/0.9',
    'GET /a HTTP/1.10',
    'GET /a HTTP/01.1',
    'GET /a http/1.1',
    'GET /a HTTP/1,1',
    'GET /a HTTP/1.',
    'GET /a HTTP/',
    'GET /a RTSP/1.0',
    'G@T /a HTTP/1.1',
    'GET: /a HTTP/1.1',
    'get /a HTTP/1.1',
    'Get /a HTTP/1.1',
    'gET /a HTTP/1.1',
    '1GET /a HTTP/1.1',
    '-GET /a HTTP/1.1',
    '"GET" /a HTTP/1.1',
    'G\xe4T /a HTTP/1.1',
    `${'A'.repeat(33)} /a HTTP/1.1`,
    'GET /a HTTP/1.1\t',
  ])('%j is refused', (line) => {
    expect(read(line, 'Host: g')).toEqual(expect.any(String));
  });
});

it('PRI, with which a connection of HTTP/2 begins, is no method', () => {
  expect(read('PRI /a HTTP/1.1', 'Host: g')).toEqual(expect.any(String));
  expect(read('PRIX /a HTTP/1.1', 'Host: g')).toMatchObject({ method: 'PRIX' });
});

describe('the host is unambiguous', () => {
  it.each(['g', 'g:80', '[::1]:80', 'a-b.example', ''])('Host %j is accepted', (host) => {
    expect(read(LINE, `Host: ${host}`)).toMatchObject({ host });
  });
  it.each([':80', ':g', 'a b', 'a/b', 'a@b', 'a?b', 'a#b', 'a\\b', 'a"b', '\xe4', 'g'.repeat(256)])(
    'Host %j is refused',
    (host) => {
      expect(read(LINE, `Host: ${host}`)).toEqual(expect.any(String));
    },
  );
  it('none, or two, are refused', () => {
    expect(read(LINE)).toEqual(expect.any(String));
    expect(read(LINE, 'Host: g', 'Host: g')).toEqual(expect.any(String));
    expect(read(LINE, 'Host:', 'host: g')).toEqual(expect.any(String));
    expect(read('GET /a HTTP/1.0')).toMatchObject({ host: '' });
  });
});

describe('characters that programs read differently are refused in a head', () => {
  it.each([
    'A: b\0',
    'A: b\rC: d',
    'A: b\nC: d',
    'A: \x0b',
    'A: \x7f',
    'A\0: b',
    ' A: b',
    '\tA: b',
    'A : b',
    'A',
    ': b',
    'A\xe4: b',
  ])('%j', (line) => {
    expect(read(LINE, 'Host: g', line)).toEqual(expect.any(String));
    expect(read(LINE, line, 'Host: g')).toEqual(expect.any(String));
  });
});

describe('fields that are read once must be sent once', () => {
  it.each(['Authorization: a', 'Content-Type: a/b', 'Host: g'])('%s', (line) => {
    expect(read(LINE, ...new Set(['Host: g', line]), line)).toEqual(expect.any(String));
  });
  it('only the expectation 100-continue is known, and only with a body', () => {
    expect(read(LINE, 'Host: g', 'Expect: x')).toEqual(expect.any(String));
    expect(read(LINE, 'Host: g', 'Expect: 100-continue', 'Expect: 100-continue')).toEqual(expect.any(String));
    expect(read(LINE, 'Host: g', 'Expect: 100-Continue', 'Content-Length: 1')).toMatchObject({ expectsContinue: true });
    expect(read(LINE, 'Host: g', 'Expect: 100-continue')).toMatchObject({ expectsContinue: false });
    expect(read('GET /a HTTP/1.0', 'Expect: 100-continue', 'Content-Length: 1')).toMatchObject({
      expectsContinue: false,
    });
  });
  it('an upgrade needs both fields, and HTTP/1.1', () => {
    expect(read(LINE, 'Host: g', 'Upgrade: WebSocket', 'Connection: x, Upgrade')).toMatchObject({
      upgrade: 'websocket',
      passed: '',
    });
    expect(read(LINE, 'Host: g', 'Upgrade: websocket')).toMatchObject({ upgrade: '' });
    expect(read('GET /a HTTP/1.0', 'Upgrade: websocket', 'Connection: upgrade')).toMatchObject({ upgrade: '' });
  });
});

describe('the gateways that a request has passed', () => {
  const names = (count: number) => Array.from({ length: count }, () => randomUUID()).join(', ');
  it.each([1, 2, 20])('%d are remembered', (count) => {
    const passed = names(count);
    expect(read(LINE, 'Host: g', `X-Latchkey-Passed-By: ${passed}`)).toMatchObject({ passedBy: passed, isLoop: false });
  });

  it.each([
    ['more than 20', names(21)],
    ['no names', 'a, b'],
    ['nothing', ''],
  ])('%s are not', (_, value) => {
    expect(read(LINE, 'Host: g', `X-Latchkey-Passed-By: ${value}`)).toMatchObject({ passedBy: '', isLoop: false });
  });

  it('end at this one, wherever it is among them', () => {
    for (const value of [OWN_NAME, `${names(1)}, ${OWN_NAME}`, `${OWN_NAME}, ${names(30)}`])
      expect(read(LINE, 'Host: g', `X-Latchkey-Passed-By: ${value}`)).toMatchObject({ isLoop: true });
  });
});

describe('Connection drops no field that the gateway goes by', () => {
  const proxy: Peer = { ip: '192.0.2.1', trusted: true, isTrusted: (ip) => ip === '192.0.2.1' };
  const id = randomUUID();
  it.each<[line: string, head: object, forwarded: string | undefined]>([
    ['Authorization: Bearer x', { authorization: 'Bearer x' }, 'authorization: Bearer x'],
    ['Cookie: a=b', { cookie: 'a=b' }, 'cookie: a=b'],
    ['Host: g', { host: 'g' }, 'x-forwarded-host: g'],
    ['X-Forwarded-For: 203.0.113.7', { ip: '203.0.113.7' }, 'x-forwarded-for: 203.0.113.7, 192.0.2.1'],
    ['X-Forwarded-Proto: https', { forwardedProto: 'https' }, 'x-forwarded-proto: https'],
    ['X-Forwarded-Host: app.example', { forwardedHost: 'app.example' }, 'x-forwarded-host: app.example'],
    ['X-Forwarded-Method: PUT', { forwardedMethod: 'PUT' }, undefined],
    ['X-Forwarded-Uri: /a', { forwardedUri: '/a' }, undefined],
    ['X-Request-Id: edge-1', { requestId: 'edge-1' }, 'x-request-id: edge-1'],
    [`X-Latchkey-Passed-By: ${id}`, { passedBy: id }, `x-latchkey-passed-by: ${id}, ${OWN_NAME}`],
    [`X-Latchkey-Passed-By: ${OWN_NAME}`, { isLoop: true }, undefined],
    ['Max-Forwards: 3', { maxForwards: 3 }, 'max-forwards: 2'],
    ['Content-Length: 5', { contentLength: 5 }, undefined],
    ['Transfer-Encoding: chunked', { chunked: true }, undefined],
    ['Content-Type: a/b', { contentType: 'a/b' }, 'Content-Type: a/b'],
    ['Content-Encoding: gzip', { contentEncoding: 'gzip' }, 'Content-Encoding: gzip'],
    ['Origin: https://a.example', { origin: 'https://a.example' }, 'Origin: https://a.example'],
    ['User-Agent: a', { userAgent: 'a' }, 'User-Agent: a'],
  ])('%s', (line, expected, forwarded) => {
    const name = line.slice(0, line.indexOf(':'));
    const host = name === 'Host' ? [] : ['Host: g'];
    for (const connection of [name, name.toLowerCase(), `close, ${name.toUpperCase()}`]) {
      for (const fields of [
        [`Connection: ${connection}`, line],
        [line, `Connection: ${connection}`],
      ]) {
        const head = readFrom(proxy, 'OPTIONS /a HTTP/1.1', ...host, ...fields);
        expect(head).toMatchObject(expected);
        const lines = forwardedLines(head as RequestHead, { authorization: true, session: true }, '');
        if (forwarded !== undefined) expect(lines.split('\r\n')).toContain(forwarded);
      }
    }
  });

  it('nor the body that an expectation, or the protocol that an upgrade is about', () => {
    expect(read(LINE, 'Host: g', 'Connection: expect', 'Expect: 100-continue', 'Content-Length: 1')).toMatchObject({
      expectsContinue: true,
    });
    expect(read(LINE, 'Host: g', 'Connection: upgrade', 'Upgrade: websocket')).toMatchObject({ upgrade: 'websocket' });
  });

  it('and lets none through that is dropped without it', () => {
    const names = ['x-latchkey-owner', 'X_Latchkey_Owner', 'x-real-ip', 'te', 'proxy-authorization', 'connection'];
    const head = read(LINE, 'Host: g', ...names.map((name) => `${name}: evil`), `Connection: ${names.join(', ')}`);
    expect(forwardedLines(head as RequestHead, { authorization: true, session: true }, '')).not.toContain('evil');
  });
});
