import { createRequire } from 'node:module';
import type { Reading } from './reading.js';

type Callback = (...args: never[]) => unknown;
interface Parser {
  initialize(type: number, resource: object, headerBytesMax: number, lenient: number): void;
  execute(bytes: Buffer): number | (Error & { code: string });
  finish(): undefined | (Error & { code: string });
  [callback: number]: Callback;
}
/** Node's own binding of llhttp, as node:http uses it; it has no public name. */
const { HTTPParser, methods } = createRequire(import.meta.url)('_http_common') as {
  HTTPParser: (new () => Parser) & Readonly<Record<string, number>>;
  methods: readonly string[];
};
const [REQUEST, RESPONSE] = [HTTPParser['REQUEST']!, HTTPParser['RESPONSE']!];
const ON_HEADERS = HTTPParser['kOnHeaders']!;
const ON_MESSAGE_BEGIN = HTTPParser['kOnMessageBegin']!;
const ON_HEADERS_COMPLETE = HTTPParser['kOnHeadersComplete']!;
const ON_BODY = HTTPParser['kOnBody']!;
const ON_MESSAGE_COMPLETE = HTTPParser['kOnMessageComplete']!;
const NOTHING = {};
const HEADER_BYTES_MAX = 65_536;

/** The parser names methods by number. */
const METHOD_NAMES: string[] = [];
for (const method of methods) {
  const parser = new HTTPParser();
  parser.initialize(REQUEST, NOTHING, 0, 0);
  parser[ON_HEADERS_COMPLETE] = (...[, , , number]: number[]) => {
    METHOD_NAMES[number!] = method;
    return 0;
  };
  parser.execute(Buffer.from(`${method} ${method === 'CONNECT' ? 'a:1' : '/'} HTTP/1.1\r\nhost: a\r\n\r\n`));
}

/** Whether llhttp has a method among those of requests; it takes PRI for the beginning of HTTP/2. */
export const isKnownMethod = (method: string): boolean => METHOD_NAMES.includes(method) && method !== 'PRI';

/** Parsers that are not in use: making one costs more than what it reads here. */
const free: Parser[] = [];

/** A stream of messages, read by llhttp as node:http configures it. */
export class Llhttp {
  readonly reading: Reading = { messages: [], end: 'waiting', why: '' };
  /** Names and values of the last head. */
  fields: string[] = [];
  /** By the last head, the connection stays open. */
  keepsAlive = true;
  onHead: (() => void) | undefined;
  onMessage: (() => void) | undefined;
  readonly #parser = free.pop() ?? new HTTPParser();

  /** @param method of the request, for a response; undefined: these are requests */
  constructor(method?: string) {
    const { reading } = this;
    const { messages } = reading;
    const parser = this.#parser;
    parser.initialize(method === undefined ? REQUEST : RESPONSE, NOTHING, HEADER_BYTES_MAX, 0);
    let url = '';
    let fields: string[] = [];
    parser[ON_MESSAGE_BEGIN] = () => {
      fields = [];
      url = '';
    };
    parser[ON_HEADERS] = (more: string[], target: string) => {
      fields.push(...more);
      url += target;
    };
    parser[ON_HEADERS_COMPLETE] = (
      _major: number,
      _minor: number,
      rest: string[] | undefined,
      number: number,
      target: string | undefined,
      status: number,
      _reason: string,
      upgrade: boolean,
      keepsAlive: boolean,
    ) => {
      this.keepsAlive = keepsAlive;
      this.fields = rest ? [...fields, ...rest] : fields;
      const start = method === undefined ? `${METHOD_NAMES[number]} ${url}${target ?? ''}` : String(status);
      messages.push({ start, body: '', complete: false });
      this.onHead?.();
      if (upgrade) reading.end = 'upgraded';
      // As node:http: these have no body.
      return method === undefined ? 0 : status < 200 || status === 304 || method === 'HEAD' ? 1 : 0;
    };
    parser[ON_BODY] = (bytes: Buffer) => {
      messages.at(-1)!.body += bytes.toString('latin1');
    };
    parser[ON_MESSAGE_COMPLETE] = () => {
      const message = messages.at(-1)!;
      message.complete = true;
      this.onMessage?.();
      // What follows a response is not part of the comparison.
      if (method !== undefined && Number(message.start) >= 200 && reading.end === 'waiting') reading.end = 'closed';
    };
  }

  read(bytes: Buffer): void {
    if (this.reading.end !== 'waiting') return;
    const result = this.#parser.execute(bytes);
    if (typeof result === 'number' || this.reading.end !== 'waiting') return;
    this.#end(result.code);
  }

  /** The stream has ended. */
  finish(): void {
    if (this.reading.end !== 'waiting') return;
    this.#parser.finish();
    // A response that ends with the connection is complete now.
    if (this.reading.messages.at(-1)?.complete !== true) this.reading.end = 'cut';
  }

  /** Nothing more is read. */
  release(): void {
    free.push(this.#parser);
  }

  #end(code: string): void {
    this.reading.end = code === 'HPE_CLOSED_CONNECTION' ? 'closed' : 'refused';
    this.reading.why = code;
  }
}

export function llhttpRequests(bytes: Buffer, cuts: readonly number[]): Reading {
  return readAll(new Llhttp(), bytes, cuts, false);
}

export function llhttpResponse(bytes: Buffer, cuts: readonly number[], method: string, ended = true): Reading {
  return readAll(new Llhttp(method), bytes, cuts, ended);
}

function readAll(parser: Llhttp, bytes: Buffer, cuts: readonly number[], ended: boolean): Reading {
  let at = 0;
  for (const cut of cuts) {
    parser.read(bytes.subarray(at, cut));
    at = cut;
  }
  if (ended) parser.finish();
  parser.release();
  return parser.reading;
}
