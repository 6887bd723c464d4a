import type { Random } from './random.js';

/** A stream of messages and what was done to it. */
export interface Case {
  readonly bytes: Buffer;
  /** Of the request, for a response. */
  readonly method: string;
  /** Minor version of the request, for a response. */
  readonly minor: number;
  readonly mutations: readonly string[];
}

interface Chunk {
  size: string;
  extension: string;
  sizeEnd: string;
  data: string;
  dataEnd: string;
}

interface Field {
  name: string;
  colon: string;
  value: string;
  end: string;
}

interface Model {
  before: string;
  start: string[];
  startEnd: string;
  fields: Field[];
  headEnd: string;
  /** Without chunks. */
  body: string;
  chunks: Chunk[] | undefined;
  trailers: Field[];
  trailerEnd: string;
  after: string;
}

const CRLF = '\r\n';
const METHODS = ['GET', 'POST', 'POST', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH'];
const BAD_METHODS = [
  'PURGE',
  'get',
  'G@T',
  'GET\t',
  'CONNECT',
  'TRACE',
  'PRI',
  'GE\0T',
  'QUERY',
  '',
  'A'.repeat(33),
  'GET:',
];
const TARGETS = ['/a', '/a/b?c=d', '/', '/a;v=1', '/%61', '/a?b=%00', '/a?b="<>'];
const BAD_TARGETS = [
  '*',
  'http://g/a',
  '/a b',
  '/a\tb',
  '/a\0',
  '/\x80',
  '/a#b',
  '/a\\b',
  'a',
  '',
  '//a',
  '/a/../b',
  '/a HTTP/1.1',
  '/\x7f',
  '/a\x0bb',
  '/a\rb',
  '/a\nb',
  '/%',
  '/%2e/',
  `/${'x'.repeat(9_000)}`,
  'g:80',
  '?a',
  '/a?\xe4',
];
const VERSIONS = [
  'HTTP/1.0',
  'HTTP/1.0',
  'HTTP/1.0',
  'HTTP/1.2',
  'HTTP/1.9',
  'HTTP/2.0',
  'HTTP/0.9',
  'http/1.1',
  'HTTP/01.1',
  'HTTP/1.1 ',
  'HTTP/1,1',
  'HTTP/11',
  'HTTP/1.10',
  'HTTP/1.',
  'XTTP/1.1',
  '',
  'HTTP/1.1\t',
  'HTTP/ 1.1',
  'RTSP/1.0',
  'ICE/1.0',
  'HTTP/1.1\x0b',
];
const STATUSES = [
  '200',
  '200',
  '200',
  '200',
  '200',
  '200',
  '200',
  '200',
  '200',
  '200',
  '200',
  '200',
  '201',
  '206',
  '404',
  '500',
  '204',
  '205',
  '304',
  '100',
  '102',
  '103',
  '101',
  '199',
];
const BAD_STATUSES = [
  '099',
  '1000',
  '20',
  '2OO',
  '',
  '-200',
  '+200',
  '200.1',
  ' 200',
  '600',
  '999',
  '200\t',
  '\t200',
  '000',
  '0x200',
];
const REASONS = ['OK', 'Not Found', '', 'A\tB', 'caf\xe9'];
const BAD_REASONS = ['A\0B', 'A\x0bB', 'A\rB', 'A\nB', 'A\x7f', 'A\r\n B'];
const LINE_ENDS = [
  '\n',
  '\r',
  '\r\r\n',
  '\n\r',
  '\r\n ',
  '\r\n\t',
  '\0\r\n',
  '\x0b\r\n',
  '\x85',
  '\r\n\r\n',
  '\r\n\n',
  ' \r\n',
  '\t\r\n',
  '',
];
const CONTROLS = [
  '\0',
  '\x01',
  '\x08',
  '\t',
  '\n',
  '\x0b',
  '\x0c',
  '\r',
  '\x1f',
  ' ',
  '\x7f',
  '\x80',
  '\x85',
  '\xa0',
  '\xff',
];
const LENGTH_NAMES = [
  'content-length',
  'CONTENT-LENGTH',
  'Content-Length ',
  'Content-Length\t',
  ' Content-Length',
  'Content_Length',
  'Content-Length\0',
  '\xa0Content-Length',
  'Content-Length\r',
  'Content-Length:',
  'Content-Lengt',
  'Content-Length\x0b',
  'Content Length',
  'Content.Length',
  'X-Content-Length',
];
const CODING_NAMES = [
  'transfer-encoding',
  'TRANSFER-ENCODING',
  'Transfer-Encoding ',
  'Transfer-Encoding\t',
  ' Transfer-Encoding',
  'Transfer_Encoding',
  'Transfer-Encoding\0',
  'X:\nTransfer-Encoding',
  'X: y\rTransfer-Encoding',
  'Transfer-Encoding\x0b',
  'Transfer Encoding',
  'transfer.encoding',
  'TE',
  'Transfer-Encoding:',
];
const CODINGS = [
  'Chunked',
  'CHUNKED',
  'chunkeD',
  'chunked ',
  'chunked\t',
  '\tchunked',
  ' chunked',
  'chunked \t ',
  '\x0bchunked',
  'chunked\x0b',
  '\x0cchunked',
  'chunked,',
  ',chunked',
  'chunked ,',
  'identity',
  'identity, chunked',
  'chunked, identity',
  'gzip, chunked',
  'gzip',
  'deflate,chunked',
  'chunked, chunked',
  'chunked chunked',
  'chunked;q=1',
  'chunked; a',
  '"chunked"',
  'xchunked',
  'chunkedx',
  'chunked\0',
  'chun\tked',
  'chunked\xa0',
  '\xa0chunked',
  '',
  ' ',
  'trailers',
  'chunked\r\n ',
  '\r\n chunked',
  'cow',
  'chunked\r',
  'chunked\n',
  'x, chunked',
  'chunk',
];
const HOSTS = [
  '',
  'a/b',
  'a b',
  'a@b',
  'a,b',
  'a\0',
  'a:80',
  '[::1]:80',
  'a\t',
  '\x80',
  'a\x0b',
  'a#b',
  'a?b',
  'http://a',
];
const CONNECTIONS = [
  'close',
  'Close',
  'close, x',
  'keep-alive',
  'x, close',
  'content-length',
  'transfer-encoding',
  'close,',
  ' ,close',
  'clos',
  'host',
  'x-a',
  'upgrade',
  'TE, close',
  'close\t',
  'close;',
  '\tclose',
];
const EXTENSIONS = [
  ';a',
  ';a=b',
  ';a="b"',
  ';a="\r\n"',
  ';',
  ' ;a',
  '; a = b',
  ';a\n',
  ';a\r',
  ';\0',
  ';a=b;c',
  ' ',
  '\t',
  '\0',
  '\x0b',
  ' a',
  '\n',
  ';a="b',
  ';;',
  '\r',
  ';\x80',
];
const CONTENTS = [
  'abc',
  'x',
  'hello world',
  '0\r\n\r\n',
  'GET /smuggled HTTP/1.1\r\nHost: g\r\n\r\n',
  '\r\n',
  'a\r\nb',
  '\0\xff\r\n',
  '5\r\nabcde\r\n0\r\n\r\n',
  'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
  '',
  'POST /smuggled HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n',
  '\n\n',
  'y'.repeat(300),
];
const OTHER_FIELDS: readonly (readonly [string, string])[] = [
  ['X-A', 'b'],
  ['Accept', '*/*'],
  ['Cookie', 'a=b'],
  ['Content-Type', 'text/plain'],
  ['X-Empty', ''],
  ['X-Text', 'caf\xe9 "a", b'],
  ['User-Agent', 'x/1 (y)'],
  ['TE', 'trailers'],
  ['Trailer', 'X-T'],
  ['Keep-Alive', 'timeout=5'],
  ['Upgrade', 'h2c'],
  ['Expect', '100-continue'],
  ['Proxy-Connection', 'close'],
  ['Date', 'Tue, 15 Nov 1994 08:12:31 GMT'],
  ['Set-Cookie', 'a=b'],
  ['X:Y', 'z'],
  ['Content-Encoding', 'gzip'],
];
const BAD_FIELDS = [
  'nocolon',
  ' folded',
  '\tfolded',
  ': y',
  'X Y: z',
  'X\0: y',
  'X: a\0b',
  'X: a\rb',
  'X: a\nb',
  'X: a\x0bb',
  'X\x80: y',
  'X(: y',
  'X: \x7f',
  'X : y',
  'X\t: y',
  '',
  'X: y\r\n ',
  'GET / HTTP/1.1',
  '\0',
  '"X": y',
  'X: \x01',
  '=: y',
  '\x0bX: y',
  'Host : g',
];

/** A request stream: a message with up to four mutations, often a second one behind it. */
export function requestCase(random: Random): Case {
  const mutations: string[] = [];
  const model = message(random, [random.pick(METHODS), ' ', random.pick(TARGETS), ' ', 'HTTP/1.1']);
  model.fields.splice(random.below(model.fields.length + 1), 0, field('Host', 'g'));
  mutate(random, model, mutations, mutateRequestLine);
  let text = textOf(model);
  if (random.chance(0.7)) {
    const next = message(random, [random.pick(METHODS), ' ', '/next', ' ', 'HTTP/1.1']);
    next.fields.unshift(field('Host', 'g'));
    text += textOf(next);
    if (random.chance(0.3)) text += 'GET /last HTTP/1.1\r\nHost: g\r\n\r\n';
  }
  return { bytes: finish(random, text, mutations), method: '', minor: 1, mutations };
}

/** A response with up to four mutations, sometimes behind interim responses, sometimes with more behind it. */
export function responseCase(random: Random): Case {
  const mutations: string[] = [];
  const method = random.chance(0.15) ? 'HEAD' : random.pick(['GET', 'POST', 'GET']);
  const minor = random.chance(0.15) ? 0 : 1;
  const model = message(random, ['HTTP/1.1', ' ', random.pick(STATUSES), ' ', random.pick(REASONS)]);
  mutate(random, model, mutations, mutateStatusLine);
  let text = textOf(model);
  if (random.chance(0.1)) {
    mutations.push('interim');
    text = `HTTP/1.1 10${random.pick(['0', '2', '3'])} Interim\r\nX-A: b\r\n\r\n${text}`;
  }
  if (random.chance(0.2)) {
    mutations.push('excess');
    text += random.pick(['HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx', '\r\n', 'x', '\0', '0\r\n\r\n']);
  }
  return { bytes: finish(random, text, mutations), method, minor, mutations };
}

const field = (name: string, value: string): Field => ({ name, colon: ': ', value, end: CRLF });

function message(random: Random, start: string[]): Model {
  const model: Model = {
    before: '',
    start,
    startEnd: CRLF,
    fields: [],
    headEnd: CRLF,
    body: '',
    chunks: undefined,
    trailers: [],
    trailerEnd: CRLF,
    after: '',
  };
  for (let i = random.below(4); i > 0; i--) model.fields.push(field(...random.pick(OTHER_FIELDS)));
  if (random.chance(0.15)) model.fields.push(field('Connection', random.pick(CONNECTIONS)));
  const framing = random.below(10);
  if (framing < 3) return model;
  if (framing < 6) {
    model.body = random.pick(CONTENTS);
    model.fields.push(field('Content-Length', String(model.body.length)));
    return model;
  }
  model.fields.push(field('Transfer-Encoding', 'chunked'));
  model.chunks = Array.from({ length: random.below(4) }, () => chunk(random.pick(CONTENTS) || 'z'));
  model.chunks.push({ ...chunk(''), dataEnd: '' });
  if (random.chance(0.25)) model.trailers.push(field('X-T', 'v'));
  if (random.chance(0.1)) model.trailers.push(field(...random.pick(OTHER_FIELDS)));
  return model;
}

const chunk = (data: string): Chunk => ({
  size: data.length.toString(16),
  extension: '',
  sizeEnd: CRLF,
  data,
  dataEnd: CRLF,
});

type Mutation = (random: Random, model: Model) => string;

function mutate(random: Random, model: Model, names: string[], mutateStart: Mutation): void {
  for (let count = random.pick([0, 0, 0, 1, 1, 1, 1, 1, 2, 3]); count > 0; count--) {
    const at = random.below(10);
    const mutation =
      at < 2
        ? mutateStart
        : at < 6
          ? mutateFields
          : model.chunks && at < 9
            ? mutateChunks
            : random.pick([mutateFields, mutateEnds]);
    names.push(mutation(random, model));
  }
}

function mutateRequestLine(random: Random, { start }: Model): string {
  switch (random.below(5)) {
    case 0:
      start[0] = random.pick(BAD_METHODS);
      return 'method';
    case 1:
    case 2:
      start[2] = random.pick(BAD_TARGETS);
      return 'target';
    case 3:
      start[4] = random.pick(VERSIONS);
      return 'version';
    default:
      start[random.pick([1, 3])] = random.pick(['  ', '\t', '', '\x0b', ' \t', '\0', '\xa0', '\r\n']);
      return 'space of the request line';
  }
}

function mutateStatusLine(random: Random, { start }: Model): string {
  switch (random.below(4)) {
    case 0:
      start[0] = random.pick(VERSIONS);
      return 'version';
    case 1:
      start[2] = random.pick(BAD_STATUSES);
      return 'status';
    case 2:
      start[4] = random.pick(BAD_REASONS);
      return 'reason';
    default:
      start[random.pick([1, 3])] = random.pick(['  ', '\t', '', '\x0b', ' \t', '\0', '\r\n']);
      return 'space of the status line';
  }
}

function mutateFields(random: Random, model: Model): string {
  const { fields } = model;
  const insert = (added: Field) => fields.splice(random.below(fields.length + 1), 0, added);
  const length = fields.find(({ name }) => name === 'Content-Length');
  const coding = fields.find(({ name }) => name === 'Transfer-Encoding');
  const size = model.body.length;
  switch (random.below(14)) {
    case 0:
      if (length) length.value = lengthValue(random, size);
      else insert(field('Content-Length', lengthValue(random, size)));
      return 'Content-Length value';
    case 1:
      if (length) length.name = random.pick(LENGTH_NAMES);
      else insert(field(random.pick(LENGTH_NAMES), String(random.below(8))));
      return 'Content-Length name';
    case 2:
      insert(field('Content-Length', random.chance(0.5) ? String(size) : lengthValue(random, size)));
      return 'a further Content-Length';
    case 3:
    case 4:
      if (coding) coding.value = random.pick(CODINGS);
      else insert(field('Transfer-Encoding', random.pick(CODINGS)));
      return 'Transfer-Encoding value';
    case 5:
      if (coding) coding.name = random.pick(CODING_NAMES);
      else insert(field(random.pick(CODING_NAMES), 'chunked'));
      return 'Transfer-Encoding name';
    case 6:
      insert(field('Transfer-Encoding', random.chance(0.5) ? 'chunked' : random.pick(CODINGS)));
      return 'a further Transfer-Encoding';
    case 7:
      if (fields.length > 0) random.pick(fields).end = random.pick(LINE_ENDS);
      return 'line end';
    case 8:
      if (fields.length > 0)
        random.pick(fields).colon = random.pick([
          ':',
          ' : ',
          ':\t',
          ':  ',
          '',
          ':\x0b',
          ':\0',
          ':\r\n ',
          '\t:',
          ':\xa0',
          '::',
          ';',
        ]);
      return 'colon';
    case 9:
      if (fields.length > 0) {
        const target = random.pick(fields);
        const at = random.below(target.value.length + 1);
        target.value = target.value.slice(0, at) + random.pick(CONTROLS) + target.value.slice(at);
      }
      return 'a control in a value';
    case 10:
      insert({ name: random.pick(BAD_FIELDS), colon: '', value: '', end: CRLF });
      return 'a malformed field';
    case 11:
      insert(field('Host', random.chance(0.4) ? 'g' : random.pick(HOSTS)));
      return 'a further Host';
    case 12: {
      const host = fields.findIndex(({ name }) => name === 'Host');
      if (host >= 0 && random.chance(0.5)) fields.splice(host, 1);
      else if (host >= 0) fields[host]!.value = random.pick(HOSTS);
      return 'Host';
    }
    default:
      insert(field(random.pick(['Connection', 'connection', 'Connection ']), random.pick(CONNECTIONS)));
      return 'Connection';
  }
}

function lengthValue(random: Random, size: number): string {
  const n = String(size);
  return random.pick([
    `0${n}`,
    `+${n}`,
    `-${n}`,
    `0x${n}`,
    `${n}, ${n}`,
    `${n},${n}`,
    `${n} `,
    `${n}\t`,
    ` ${n}`,
    `\t${n}`,
    `${n}.0`,
    `${n}e0`,
    '',
    ' ',
    `${n};`,
    `${n}\0`,
    `${n} ${n}`,
    `\xa0${n}`,
    `${n}\xa0`,
    `${n},`,
    `,${n}`,
    `"${n}"`,
    String(size + 1),
    String(Math.max(0, size - 1)),
    String(4_294_967_296 + size),
    '18446744073709551616',
    `1844674407370955161${size % 10}`,
    '9223372036854775808',
    '99999999999999999999',
    '999999999999999',
    '9999999999999999',
    `000000000000000000000${n}`,
    `${n}\x0b`,
    `${n}\r\n `,
    `\r\n ${n}`,
    `${n}\r`,
    '0',
    '1',
    `${n}_0`,
    'a',
  ]);
}

function mutateChunks(random: Random, model: Model): string {
  const chunks = model.chunks!;
  const target = random.pick(chunks);
  switch (random.below(9)) {
    case 0:
    case 1: {
      const { size } = target;
      target.size = random.pick([
        size.toUpperCase(),
        `0${size}`,
        `000000000000000${size}`,
        `0x${size}`,
        `+${size}`,
        `-${size}`,
        ` ${size}`,
        `${size} `,
        `\t${size}`,
        `${size}\t`,
        `${size}\0`,
        (Number.parseInt(size, 16) + 1).toString(16),
        Math.max(0, Number.parseInt(size, 16) - 1).toString(16),
        '',
        'g',
        'ffffffffffffffff',
        `10000000000000000${size}`,
        `1000000000000${size}`,
        'fffffffffffff',
        `${size}.0`,
        `${size}_`,
        `\xa0${size}`,
        `\n${size}`,
        `${size}h`,
        '0',
        `0000000000${size}`,
        '7fffffff',
        'ffffffff',
        '100000000',
      ]);
      return 'chunk size';
    }
    case 2:
      target.extension = random.pick(EXTENSIONS);
      return 'chunk extension';
    case 3:
      target.sizeEnd = random.pick(LINE_ENDS);
      return 'line end of a chunk size';
    case 4:
      target.dataEnd = random.pick([...LINE_ENDS, 'x', 'xx', '\r\n\r\n']);
      return 'line end of a chunk';
    case 5:
      chunks.splice(chunks.indexOf(target), 1);
      if (chunks.length === 0) model.chunks = undefined;
      return 'a chunk less';
    case 6:
      model.trailers.splice(random.below(model.trailers.length + 1), 0, {
        name: random.pick(BAD_FIELDS),
        colon: '',
        value: '',
        end: CRLF,
      });
      return 'a malformed trailer';
    case 7: {
      const added = random.pick([
        field('Content-Length', '3'),
        field('Transfer-Encoding', 'chunked'),
        field('Host', 'h'),
        field('X-T', 'a'),
      ]);
      if (random.chance(0.5)) added.end = random.pick(LINE_ENDS);
      if (random.chance(0.3)) added.value += random.pick(CONTROLS);
      model.trailers.push(added);
      return 'trailer';
    }
    default:
      model.trailerEnd = random.pick(LINE_ENDS);
      return 'end of the trailer section';
  }
}

function mutateEnds(random: Random, model: Model): string {
  switch (random.below(5)) {
    case 0:
      model.startEnd = random.pick(LINE_ENDS);
      return 'line end of the first line';
    case 1:
      model.headEnd = random.pick(LINE_ENDS);
      return 'end of the head';
    case 2:
      model.before = random.pick(['\r\n', '\n', '\r\n\r\n', ' ', '\0', '\r', '\t', '\xef\xbb\xbf', '\r\n ', '\n\r\n']);
      return 'bytes before the first line';
    case 3:
      model.after = random.pick(['\r\n', '\n', '\r\n\r\n', ' ', '\0', '\r', 'x', '0\r\n\r\n', '\r\n\r\n\r\n']);
      return 'bytes behind the message';
    default:
      for (const { name, colon, value } of model.fields.splice(0)) model.fields.push({ name, colon, value, end: '\n' });
      return 'all line ends bare LF';
  }
}

function textOf(model: Model): string {
  let text = model.before + model.start.join('') + model.startEnd;
  for (const { name, colon, value, end } of model.fields) text += name + colon + value + end;
  text += model.headEnd + model.body;
  if (model.chunks) {
    for (const { size, extension, sizeEnd, data, dataEnd } of model.chunks)
      text += size + extension + sizeEnd + data + dataEnd;
    for (const { name, colon, value, end } of model.trailers) text += name + colon + value + end;
    text += model.trailerEnd;
  }
  return text + model.after;
}

/** Now and then single bytes change, and the stream ends early. */
function finish(random: Random, text: string, mutations: string[]): Buffer {
  let changed = text;
  if (random.chance(0.08)) {
    mutations.push('single bytes');
    for (let count = 1 + random.below(3); count > 0; count--) {
      const at = random.below(changed.length + 1);
      const replaced = random.below(3) === 0 ? 0 : 1;
      const by = random.below(4) === 0 ? '' : random.pick([...CONTROLS, ':', ',', ';', '0', '1', 'a', '-']);
      changed = changed.slice(0, at) + by + changed.slice(at + replaced);
    }
  }
  if (random.chance(0.07)) {
    mutations.push('cut');
    changed = changed.slice(0, random.below(changed.length));
  }
  return Buffer.from(changed === '' ? '\r' : changed, 'latin1');
}
