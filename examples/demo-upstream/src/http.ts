import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Caller } from './caller.js';
import type { Log } from './log.js';
import type { Store } from './store.js';

/** The argument of every handler. */
export interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  /** Path and query; the host part means nothing. */
  url: URL;
  /** The path's segments, decoded. */
  path: string[];
  caller: Caller;
  store: Store;
  log: Log;
  /** Aborted when the caller has gone or the server stops. */
  signal: AbortSignal;
}

export interface FieldError {
  field: string;
  message: string;
}

/** An error response: thrown by handlers, written as RFC 9457 problem details. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly extra: { headers?: Record<string, string>; errors?: FieldError[] } = {},
  ) {
    super(detail);
  }
}

const TITLES: Record<number, string> = {
  400: 'Bad Request',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  406: 'Not Acceptable',
  412: 'Precondition Failed',
  413: 'Content Too Large',
  415: 'Unsupported Media Type',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
  507: 'Insufficient Storage',
};

/** JSON bodies past this many bytes are 413. */
export const JSON_BYTES_MAX = 64 * 1024;

export function sendJson(
  { response }: Pick<Exchange, 'response'>,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    ...headers,
  });
  response.end(text);
}

export function sendProblem({ response, caller }: Pick<Exchange, 'response' | 'caller'>, problem: Problem): void {
  const { status, code, detail, extra } = problem;
  const body = {
    type: 'about:blank',
    title: TITLES[status] ?? 'Error',
    status,
    detail,
    code,
    requestId: caller.requestId,
    ...(extra.errors ? { errors: extra.errors } : {}),
  };
  sendJson({ response }, status, body, { 'content-type': 'application/problem+json', ...extra.headers });
}

export function notFound(what: string): Problem {
  return new Problem(404, 'not_found', `There is no ${what} here.`);
}

/** The handler of the request's method, HEAD counting as GET; 405 with `Allow` otherwise. */
export function byMethod<T>(request: IncomingMessage, handlers: Partial<Record<string, T>>): T {
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined;
  if (handler) return handler;
  const allow = Object.keys(handlers).flatMap((name) => (name === 'GET' ? ['GET', 'HEAD'] : [name]));
  throw new Problem(405, 'method_not_allowed', `${request.method} is not offered here; ${allow.join(', ')} is.`, {
    headers: { allow: allow.join(', ') },
  });
}

const BLOCK_BYTES = 64 * 1024;

/** Reads a body of at most `bytesMax`; 413 as soon as it is known to be longer, the rest discarded. */
export async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer[]> {
  const tooLarge = () => {
    // Closing at once would reset the connection, and the caller might never read the reason.
    request.resume();
    return new Problem(413, 'content_too_large', `The body can have at most ${bytesMax} bytes.`);
  };
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge();
  // Copied into whole blocks: a body sent byte by byte would otherwise cost a hundred times its size.
  const blocks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    if (size + chunk.length > bytesMax) throw tooLarge();
    for (let from = 0; from < chunk.length; ) {
      const at = size % BLOCK_BYTES;
      if (at === 0) blocks.push(Buffer.allocUnsafeSlow(Math.min(BLOCK_BYTES, bytesMax - size)));
      const copied = chunk.copy(blocks.at(-1)!, at, from);
      from += copied;
      size += copied;
    }
  }
  if (size % BLOCK_BYTES > 0) blocks.push(blocks.pop()!.subarray(0, size % BLOCK_BYTES));
  return blocks;
}

/** Reads a JSON body: 415 for another media type, 413 past {@link JSON_BYTES_MAX}, 400 when it is not JSON in UTF-8. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const type = (request.headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new Problem(415, 'unsupported_media_type', 'Send the body as application/json.', {
      headers: { accept: 'application/json' },
    });
  }
  const bytes = Buffer.concat(await readBody(request, JSON_BYTES_MAX));
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new Problem(400, 'invalid_json', 'The body is not JSON in UTF-8.');
  }
}

/** Writes a piece and waits while the caller reads slower than we write. False once the caller has gone. */
export async function write(response: ServerResponse, piece: string | Buffer, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted || response.destroyed) return false;
  if (response.write(piece)) return true;
  return once(response, 'drain', { signal }).then(
    () => true,
    () => false,
  );
}

/** True when the Accept header names this media type itself, not by a wildcard. */
export function acceptsExplicitly(request: IncomingMessage, type: string): boolean {
  return (request.headers.accept ?? '').split(',').some((part) => part.split(';', 1)[0]!.trim().toLowerCase() === type);
}
