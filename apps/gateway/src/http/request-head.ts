import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { isRequestId, REQUEST_ID_HEADER, SECURE_SESSION_COOKIE, SESSION_COOKIE } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { plainAddress } from './plain-address.js';
import type { ErrorResponse } from './responses.js';

export const HEADERS_MAX = 200;

/** What the gateway needs of a request's headers, read in one pass. */
export interface RequestHead {
  /** Alternating names and values: headers that are forwarded unchanged, without credentials, cookies and framing. */
  readonly passed: string[];
  readonly requestId: string;
  /** The caller's address. */
  readonly ip: string;
  readonly host: string;
  readonly authorization: string | undefined;
  /** Unchanged; see `withoutSessionCookie`. */
  readonly cookie: string | undefined;
  readonly userAgent: string;
  readonly origin: string | undefined;
  readonly contentType: string | undefined;
  readonly contentEncoding: string | undefined;
  /** Bytes; undefined without the header. */
  readonly contentLength: string | undefined;
  readonly chunked: boolean;
  /** `X-Forwarded-For` for the upstream. */
  readonly forwardedFor: string;
  readonly forwardedProto: string;
  readonly forwardedHost: string;
}

enum Action {
  Pass,
  Drop,
  Authorization,
  Cookie,
  Host,
  ContentLength,
  ContentType,
  ContentEncoding,
  TransferEncoding,
  Connection,
  UserAgent,
  Origin,
  Expect,
  ForwardedFor,
  ForwardedProto,
  ForwardedHost,
  RequestId,
}

const ACTIONS: Readonly<Record<string, Action>> = {
  authorization: Action.Authorization,
  cookie: Action.Cookie,
  host: Action.Host,
  'content-length': Action.ContentLength,
  'content-type': Action.ContentType,
  'content-encoding': Action.ContentEncoding,
  'transfer-encoding': Action.TransferEncoding,
  connection: Action.Connection,
  'user-agent': Action.UserAgent,
  origin: Action.Origin,
  expect: Action.Expect,
  'x-forwarded-for': Action.ForwardedFor,
  'x-forwarded-proto': Action.ForwardedProto,
  'x-forwarded-host': Action.ForwardedHost,
  [REQUEST_ID_HEADER]: Action.RequestId,
  // Hop-by-hop (RFC 9110 section 7.6.1).
  'keep-alive': Action.Drop,
  'proxy-connection': Action.Drop,
  'proxy-authorization': Action.Drop,
  'proxy-authenticate': Action.Drop,
  te: Action.Drop,
  trailer: Action.Drop,
  upgrade: Action.Drop,
  'http2-settings': Action.Drop,
  // Some servers read the address, the path, the method or a proxy from these instead of what was checked.
  forwarded: Action.Drop,
  'x-real-ip': Action.Drop,
  'x-original-url': Action.Drop,
  'x-original-uri': Action.Drop,
  'x-original-method': Action.Drop,
  'x-rewrite-url': Action.Drop,
  'x-http-method': Action.Drop,
  'x-http-method-override': Action.Drop,
  'x-method-override': Action.Drop,
  proxy: Action.Drop,
};
const OWN = /^x-(latchkey|forwarded)(-|$)/;

/** By the spelling received; bounded, because spellings come from outside. */
const known = new Map<string, Action>();
const KNOWN_MAX = 4_000;

function actionOf(name: string): Action {
  const remembered = known.get(name);
  if (remembered !== undefined) return remembered;
  const lower = name.toLowerCase();
  const plain = normalHeaderName(name);
  const exact = Object.hasOwn(ACTIONS, lower) ? ACTIONS[lower] : undefined;
  const action = exact ?? (Object.hasOwn(ACTIONS, plain) || OWN.test(plain) ? Action.Drop : Action.Pass);
  if (known.size < KNOWN_MAX) known.set(name, action);
  return action;
}

/** Lower case, other characters as "-". CGI and WSGI turn them into "_", so all such spellings are one name there. */
export function normalHeaderName(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, '-');
}

export function hasBody(head: RequestHead): boolean {
  return head.chunked || (head.contentLength !== undefined && head.contentLength !== '0');
}

/** A peer of the public port, determined once per connection. */
interface Peer {
  readonly ip: string;
  readonly trusted: boolean;
}
const peerOf = Symbol('peer');
type PeerSocket = Socket & { [peerOf]?: Peer };

export function peer(socket: Socket, isTrusted: (ip: string) => boolean): Peer {
  const known = (socket as PeerSocket)[peerOf];
  if (known) return known;
  const ip = plainAddress(socket.remoteAddress);
  const created = { ip, trusted: isTrusted(ip) };
  (socket as PeerSocket)[peerOf] = created;
  return created;
}

const HOST = /^[A-Za-z0-9._~!$&'()*+,;=:[\]%-]{0,255}$/;

const bad = (detail: string): ErrorResponse => ({ code: 'invalid_request', detail });

export type HeadResult = { readonly head: RequestHead } | { readonly error: ErrorResponse; readonly requestId: string };

/**
 * Reads the headers of a request.
 * @param isTrusted whether an address's X-Forwarded-* and X-Request-Id are trusted
 */
export function readHead(req: IncomingMessage, isTrusted: (ip: string) => boolean): HeadResult {
  const { ip: peerIp, trusted } = peer(req.socket, isTrusted);
  const raw = req.rawHeaders;
  const passed: string[] = [];
  let authorization: string | undefined;
  let cookie: string | undefined;
  let host: string | undefined;
  let contentLength: string | undefined;
  let contentType: string | undefined;
  let contentEncoding: string | undefined;
  let transferEncoding: string | undefined;
  let connection: string | undefined;
  let expect: string | undefined;
  let origin: string | undefined;
  let userAgent = '';
  let forwardedFor = '';
  let forwardedProto = '';
  let forwardedHost = '';
  let requestId = '';
  let duplicate = '';

  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    const value = raw[i + 1]!;
    switch (actionOf(name)) {
      case Action.Pass:
        passed.push(name, value);
        break;
      case Action.Authorization:
        if (authorization !== undefined) duplicate = 'Authorization';
        authorization = value;
        break;
      case Action.Cookie:
        cookie = cookie === undefined ? value : `${cookie}; ${value}`;
        break;
      case Action.Host:
        if (host !== undefined) duplicate = 'Host';
        host = value;
        break;
      case Action.ContentLength:
        if (contentLength !== undefined) duplicate = 'Content-Length';
        contentLength = value;
        break;
      case Action.ContentType:
        if (contentType !== undefined) duplicate = 'Content-Type';
        contentType = value;
        passed.push(name, value);
        break;
      case Action.ContentEncoding:
        contentEncoding = contentEncoding === undefined ? value : `${contentEncoding}, ${value}`;
        passed.push(name, value);
        break;
      case Action.TransferEncoding:
        if (transferEncoding !== undefined) duplicate = 'Transfer-Encoding';
        transferEncoding = value;
        break;
      case Action.Connection:
        connection = connection === undefined ? value : `${connection},${value}`;
        break;
      case Action.UserAgent:
        userAgent = value;
        passed.push(name, value);
        break;
      case Action.Origin:
        origin = value;
        passed.push(name, value);
        break;
      case Action.Expect:
        expect = value;
        break;
      case Action.ForwardedFor:
        if (trusted) forwardedFor = forwardedFor === '' ? value : `${forwardedFor}, ${value}`;
        break;
      case Action.ForwardedProto:
        if (trusted) forwardedProto = value;
        break;
      case Action.ForwardedHost:
        if (trusted) forwardedHost = value;
        break;
      case Action.RequestId:
        if (trusted && isRequestId(value)) requestId = value;
        break;
    }
  }
  if (requestId === '') requestId = newId();
  const refuse = (error: ErrorResponse): HeadResult => ({ error, requestId });

  if (raw.length > 2 * HEADERS_MAX)
    return refuse({ code: 'header_too_large', detail: `A request can have at most ${HEADERS_MAX} headers.` });
  if (duplicate !== '') return refuse(bad(`The header ${duplicate} was sent twice.`));
  if (host === undefined && req.httpVersionMinor > 0) return refuse(bad('The header Host is missing.'));
  if (host !== undefined && !HOST.test(host)) return refuse(bad('The header Host is not a valid host name.'));
  if (transferEncoding !== undefined) {
    if (transferEncoding.toLowerCase() !== 'chunked')
      return refuse(bad('The only supported transfer coding is "chunked".'));
    if (contentLength !== undefined)
      return refuse(bad('Content-Length and Transfer-Encoding together make the end of the body ambiguous.'));
    if (req.httpVersionMinor === 0) return refuse(bad('HTTP/1.0 has no transfer codings.'));
  }
  if (expect !== undefined && expect.toLowerCase() !== '100-continue')
    return refuse(bad('The only supported expectation is "100-continue".'));

  const ip = forwardedFor === '' ? peerIp : callerAddress(forwardedFor, peerIp, isTrusted);
  return {
    head: {
      passed: connection === undefined ? passed : withoutNamed(passed, connection),
      requestId,
      ip,
      host: host ?? '',
      authorization,
      cookie,
      userAgent,
      origin,
      contentType,
      contentEncoding,
      contentLength,
      chunked: transferEncoding !== undefined,
      forwardedFor: forwardedFor === '' ? peerIp : `${forwardedFor}, ${peerIp}`,
      forwardedProto: forwardedProto === 'https' ? 'https' : 'http',
      forwardedHost: forwardedHost !== '' && HOST.test(forwardedHost) ? forwardedHost : (host ?? ''),
    },
  };
}

/** The last address in X-Forwarded-For that is not a trusted proxy; an invalid entry ends the search. */
export function callerAddress(forwardedFor: string, peerIp: string, isTrusted: (ip: string) => boolean): string {
  let nearest = peerIp;
  const parts = forwardedFor.split(',');
  for (let i = parts.length - 1; i >= 0; i--) {
    const address = readAddress(parts[i]!.trim());
    if (address === undefined) return nearest;
    nearest = address;
    if (!isTrusted(address)) return nearest;
  }
  return nearest;
}

function readAddress(text: string): string | undefined {
  const [, bracketed, plainV4] = /^\[([0-9a-fA-F:.]+)\](?::\d+)?$|^(\d+\.\d+\.\d+\.\d+):\d+$/.exec(text) ?? [];
  const address = plainAddress(bracketed ?? plainV4 ?? text);
  return /^[0-9a-fA-F:.]{2,45}$/.test(address) ? address : undefined;
}

/** Drops the headers that `Connection` lists as hop-by-hop (RFC 9110 section 7.6.1). */
export function withoutNamed(headers: string[], connection: string): string[] {
  const names = connection
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '' && name !== 'close' && name !== 'keep-alive' && name !== 'upgrade');
  if (names.length === 0) return headers;
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    if (!names.includes(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

const isSessionName = (name: string) =>
  name.toLowerCase() === SESSION_COOKIE || name.toLowerCase() === SECURE_SESSION_COOKIE.toLowerCase();

/** A Cookie header without the console's session cookie; undefined when nothing is left. */
export function withoutSessionCookie(cookie: string): string | undefined {
  if (!cookie.toLowerCase().includes(SESSION_COOKIE)) return cookie;
  const kept = cookie.split(';').filter((pair) => {
    const end = pair.indexOf('=');
    return !isSessionName((end < 0 ? pair : pair.slice(0, end)).trim().replace(/^"|"$/g, ''));
  });
  const rest = kept.join(';').trim();
  return rest === '' ? undefined : rest;
}

/** True for a Set-Cookie value that would set the console's session cookie, also as a nameless cookie. */
export function setsSessionCookie(value: string): boolean {
  const pair = value.split(';', 1)[0]!.replace(/^[\s=]+/, '');
  const end = pair.indexOf('=');
  return isSessionName((end < 0 ? pair : pair.slice(0, end)).trim());
}
