import type { CallerRequest, ResponseSink, UpstreamConnection, UpstreamPool } from '../../src/engine/index.js';
import { Exchange, type ExchangeDeps, type Plan } from '../../src/handlers/exchange.js';
import {
  type BodyReader,
  ChunkedBody,
  forwardedLines,
  HeadScan,
  LengthBody,
  ResponseHead,
  type ResponsePolicy,
  readTarget,
  UntilCloseBody,
} from '../../src/http/index.js';
import { OpenExchanges } from '../../src/streams/index.js';
import { CallerSocket } from '../caller-socket.js';
import type { Reading } from './reading.js';

export const POLICY: ResponsePolicy = { trustedOrigin: true, maySetSession: true, ownCors: false };
const NOTHING = Buffer.alloc(0);
const scan = new HeadScan();
const OK = responseHead('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n');
const CONTINUE = responseHead('HTTP/1.1 100 Continue\r\n');

function responseHead(text: string): ResponseHead {
  scan.scan(Buffer.from(`${text}\r\n`), 0);
  return ResponseHead.read(text, scan, 'GET', POLICY) as ResponseHead;
}

export const exchangeDeps: ExchangeDeps = {
  open: new OpenExchanges(),
  bodyIdleMs: 60_000,
  upstreamFailed: () => undefined,
};

/** What a request stream is to the gateway, and the streams that it sends to an upstream: one for each request. */
export interface RequestsRead {
  readonly reading: Reading;
  readonly forwarded: { readonly start: string; bytes: string; complete: boolean }[];
}

/** As the public listener does before it forwards; false: it has refused the request. */
export function admit(request: CallerRequest): string | undefined {
  const { head } = request;
  if (head.method === 'CONNECT' || head.method === 'TRACE') {
    request.closeAfter();
    request.refuse({ code: 'method_not_allowed', detail: 'The method is not supported.' });
    return undefined;
  }
  const target = readTarget(head.target);
  if (!('detail' in target)) return target.path + target.query;
  // A bad target does not end the connection, so the messages behind it count too.
  request.closeAfter();
  request.refuse({ code: 'invalid_request', detail: target.detail });
  return undefined;
}

export function planFor(request: CallerRequest, path: string, upstream: UpstreamPool, more = ''): Plan {
  return {
    upstream,
    path,
    lines: forwardedLines(request.head, { authorization: true, session: true }, '') + more,
    body: undefined,
    timeoutMs: 60_000,
    policy: POLICY,
    extra: '',
    watch: undefined,
    unavailableDetail: undefined,
  };
}

/** Reads a stream of requests with the caller's side of the engine, for their content. */
export function readRequests(bytes: Buffer, cuts: readonly number[]): Reading {
  const reading: Reading = { messages: [], end: 'waiting', why: '' };
  const complete: CallerRequest[] = [];
  const socket = new CallerSocket(
    (request) => {
      const { head } = request;
      if (admit(request) === undefined) return;
      // As received: a target in absolute form is read as its path.
      const message = {
        start: head.text.slice(0, head.text.lastIndexOf(' ', head.text.indexOf('\r\n'))),
        body: '',
        complete: false,
      };
      reading.messages.push(message);
      if (head.upgrade !== '') reading.end = 'upgraded';
      if (head.hasBody)
        request.readBody(
          {
            onBody: (content) => {
              message.body += content.toString('latin1');
            },
            onBodyEnd: () => {
              message.complete = true;
              complete.push(request);
            },
            onBodyMalformed: () =>
              request.refuse({ code: 'invalid_request', detail: 'The chunks are not well-formed.' }),
          },
          true,
        );
      else {
        message.complete = true;
        complete.push(request);
      }
    },
    (request) => {
      if (request.status < 400) return;
      reading.end = 'refused';
      reading.why = detailOf(socket);
    },
  );
  feed(socket, bytes, cuts, () => {
    for (let request = complete.shift(); request; request = complete.shift()) request.respond(200, 'OK', '');
  });
  if (reading.end === 'waiting' && socket.ended) reading.end = 'closed';
  return reading;
}

/** The error that was written; the response to HEAD has no body. */
function detailOf({ written }: CallerSocket): string {
  const body = written.slice(written.lastIndexOf('\r\n\r\n') + 4);
  return body === '' ? 'a request with HEAD, whose error has no body' : (JSON.parse(body) as { detail: string }).detail;
}

/** The kernel holds back what comes while a socket is paused. */
function feed(socket: CallerSocket, bytes: Buffer, cuts: readonly number[], respond: () => void): void {
  let at = 0;
  for (const cut of cuts) {
    if (socket.ended) return;
    if (socket.isPaused()) throw new Error('the engine reads no more, and waits for nothing');
    socket.receive(bytes.subarray(at, cut));
    respond();
    at = cut;
  }
}

/** Forwards a stream of requests with the shipped exchange; the upstream responds to each once it is complete. */
export function forwardRequests(bytes: Buffer, cuts: readonly number[]): RequestsRead['forwarded'] {
  const forwarded: RequestsRead['forwarded'] = [];
  let sink: ResponseSink | undefined;
  let next: RequestsRead['forwarded'][number] | undefined;
  let path = '';
  const connection = {
    write: (more: Buffer) => {
      next!.bytes += more.toString('latin1');
      return false;
    },
    finish: (tail: string) => {
      next!.bytes += tail;
      next!.complete = true;
    },
    destroy: () => undefined,
    pause: () => undefined,
    resume: () => undefined,
  };
  const upstream = {
    origin: { authority: 'upstream' },
    send: (to: ResponseSink, head: string, complete: boolean) => {
      sink = to;
      next = { start: `${to.method} ${path}`, bytes: head, complete };
      forwarded.push(next);
      return connection as unknown as UpstreamConnection;
    },
  } as unknown as UpstreamPool;
  const socket = new CallerSocket((request) => {
    const admitted = admit(request);
    if (admitted === undefined) return;
    path = admitted;
    new Exchange(request, planFor(request, path, upstream), exchangeDeps).start();
  });
  feed(socket, bytes, cuts, () => {
    for (let last: string | undefined; next && sink && last !== next.bytes; ) {
      last = next.bytes;
      if (next.complete) {
        const responded = sink;
        [sink, next] = [undefined, undefined];
        responded.onResponse(OK, NOTHING, 0, 0, '');
        responded.onEnd('');
      } else {
        if (next.bytes.includes('\r\nexpect: 100-continue\r\n')) sink.onInterim(CONTINUE);
        sink?.onDrain();
      }
    }
  });
  socket.destroy();
  return forwarded;
}

/** Reads a response as an upstream connection does, for its content. */
export function readResponse(bytes: Buffer, cuts: readonly number[], method: string): Reading {
  const reading: Reading = { messages: [], end: 'waiting', why: '' };
  new ResponseReader(
    {
      method,
      policy: POLICY,
      wantsContent: () => true,
      onInterim: (head) => reading.messages.push({ start: String(head.status), body: '', complete: true }),
      onResponse: (head) => reading.messages.push({ start: String(head.status), body: '', complete: false }),
      onData: (buffer, start, end) => {
        reading.messages.at(-1)!.body += buffer.toString('latin1', start, end);
      },
      onEnd: () => {
        reading.messages.at(-1)!.complete = true;
        reading.end = 'closed';
      },
      onUpgrade: () => {
        // As the exchange does.
        reading.end = 'refused';
        reading.why = 'the upstream switched to a protocol unasked';
      },
      onFailure: ({ reason }) => {
        reading.end = 'refused';
        reading.why = reason;
      },
      onDrain: () => undefined,
    },
    bytes,
    cuts,
  );
  return reading;
}

/** What the gateway sends to a caller for an upstream's response; `ended`: it has closed the connection behind it. */
export function forwardResponse(
  bytes: Buffer,
  cuts: readonly number[],
  method: string,
  minor: number,
): { readonly bytes: Buffer; readonly ended: boolean } {
  let sink: ResponseSink | undefined;
  const connection = { destroy: () => undefined, pause: () => undefined, resume: () => undefined };
  const upstream = {
    origin: { authority: 'upstream' },
    send: (to: ResponseSink) => {
      sink = to;
      return connection as unknown as UpstreamConnection;
    },
  } as unknown as UpstreamPool;
  const socket = new CallerSocket((request) =>
    new Exchange(request, planFor(request, '/', upstream), exchangeDeps).start(),
  );
  socket.receive(`${method} / HTTP/1.${minor}\r\nhost: g\r\n\r\n`);
  // A retry has another upstream connection, which gives the same response.
  for (let tries = 0; tries < 2 && sink; tries++) {
    const to: ResponseSink = sink;
    sink = undefined;
    new ResponseReader(to, bytes, cuts);
  }
  const written = Buffer.from(socket.written, 'latin1');
  const { ended } = socket;
  socket.destroy();
  return { bytes: written, ended };
}

/** As in an upstream connection: every segment comes in the same memory. */
const shared = Buffer.alloc(65_536);
const INTERIM_MAX = 100;

/**
 * The order in which an upstream connection reads (`UpstreamConnection`), without its socket. The runs over sockets compare
 * the two.
 */
class ResponseReader {
  #pending = NOTHING;
  #body: BodyReader | undefined;
  #payload: number[] | undefined;
  #over = false;
  #interim = 0;

  constructor(
    private readonly sink: ResponseSink,
    bytes: Buffer,
    cuts: readonly number[],
  ) {
    let at = 0;
    for (const cut of cuts) {
      if (this.#over) return;
      bytes.copy(shared, 0, at, cut);
      this.#take(
        this.#pending.length > 0
          ? Buffer.concat([this.#pending, shared.subarray(0, cut - at)])
          : shared.subarray(0, cut - at),
      );
      shared.fill(0x5a, 0, cut - at);
      at = cut;
    }
    if (this.#over) return;
    this.#over = true;
    if (this.#body instanceof UntilCloseBody) sink.onEnd('');
    else sink.onFailure({ kind: 'lost', reason: 'the connection ended before the response was complete' });
  }

  #take(buffer: Buffer): void {
    this.#pending = NOTHING;
    let at = 0;
    while (!this.#body) {
      const end = scan.scan(buffer, at);
      if (end < 0) {
        this.#fail('the head is malformed');
        return;
      }
      if (end === 0) {
        this.#pending = Buffer.from(buffer.subarray(at));
        return;
      }
      const text = buffer.toString('latin1', at, end - 2);
      const head = ResponseHead.read(text, scan, this.sink.method, this.sink.policy);
      if ('malformed' in head) {
        this.#fail(head.malformed);
        return;
      }
      at = end;
      if (head.status === 101) {
        this.#over = true;
        this.sink.onUpgrade(head, buffer, at, buffer.length);
        return;
      }
      if (head.status >= 200) {
        this.#begin(head, buffer, at);
        return;
      }
      if (++this.#interim > INTERIM_MAX) {
        this.#fail('too many interim responses');
        return;
      }
      this.sink.onInterim(head);
    }
    this.#read(buffer, at);
  }

  #begin(head: ResponseHead, buffer: Buffer, at: number): void {
    const { sink } = this;
    if (head.framing === 'none') {
      sink.onResponse(head, NOTHING, 0, 0, '');
      this.#complete('');
      return;
    }
    const body =
      head.framing === 'length'
        ? new LengthBody(head.contentLength)
        : head.framing === 'chunked'
          ? new ChunkedBody()
          : new UntilCloseBody();
    this.#body = body;
    if (sink.wantsContent(head)) {
      this.#payload = [];
      sink.onResponse(head, NOTHING, 0, 0, undefined);
      this.#read(buffer, at);
      return;
    }
    const end = body.read(buffer, at);
    if (end < 0) {
      this.#fail('the chunks are not well-formed');
      return;
    }
    sink.onResponse(head, buffer, at, end, body.complete ? body.tail : undefined);
    if (body.complete) this.#complete('');
  }

  #read(buffer: Buffer, at: number): void {
    const { sink } = this;
    const body = this.#body!;
    const payload = this.#payload;
    const end = body.read(buffer, at, payload);
    if (end < 0) {
      this.#fail('the chunks are not well-formed');
      return;
    }
    if (payload) {
      for (let i = 0; i < payload.length; i += 2) sink.onData(buffer, payload[i]!, payload[i + 1]!);
      payload.length = 0;
    } else if (end > at) sink.onData(buffer, at, end);
    if (body.complete) this.#complete(payload ? '' : body.tail);
  }

  #complete(tail: string): void {
    this.#over = true;
    this.sink.onEnd(tail);
  }

  #fail(reason: string): void {
    this.#over = true;
    this.sink.onFailure({ kind: 'malformed', reason });
  }
}
