import { setsSessionCookie } from './request-head.js';

/** How the gateway changes the headers of responses: one per route. */
export interface ResponsePolicy {
  /** The upstream may act as the console's origin; otherwise its pages are sandboxed (Content-Security-Policy). */
  readonly trustedOrigin: boolean;
  /** Only the management API may set the session cookie. */
  readonly maySetSession: boolean;
  /** The gateway writes the CORS headers and drops the upstream's. */
  readonly ownCors: boolean;
}

export interface ResponseHead {
  /** Alternating names and values, for `writeHead`. */
  readonly headers: string[];
  /** Bytes; -1 without the header. */
  readonly contentLength: number;
  readonly eventStream: boolean;
}

enum Action {
  Pass,
  Drop,
  SetCookie,
  ContentLength,
  ContentType,
  Connection,
  Cors,
  NeedsTrust,
}

const ACTIONS: Readonly<Record<string, Action>> = {
  'set-cookie': Action.SetCookie,
  'content-length': Action.ContentLength,
  'content-type': Action.ContentType,
  connection: Action.Connection,
  'keep-alive': Action.Drop,
  'proxy-connection': Action.Drop,
  'proxy-authenticate': Action.Drop,
  'proxy-authorization': Action.Drop,
  te: Action.Drop,
  trailer: Action.Drop,
  'transfer-encoding': Action.Drop,
  upgrade: Action.Drop,
  'x-request-id': Action.Drop,
  // These apply to the whole origin, which is the console's too.
  'clear-site-data': Action.NeedsTrust,
  'service-worker-allowed': Action.NeedsTrust,
  'strict-transport-security': Action.NeedsTrust,
  'alt-svc': Action.NeedsTrust,
  nel: Action.NeedsTrust,
  'report-to': Action.NeedsTrust,
  'reporting-endpoints': Action.NeedsTrust,
};

/** Bounded, because names come from outside. */
const known = new Map<string, Action>();
const KNOWN_MAX = 4_000;

function actionOf(name: string): Action {
  const remembered = known.get(name);
  if (remembered !== undefined) return remembered;
  const action = Object.hasOwn(ACTIONS, name)
    ? ACTIONS[name]!
    : name.startsWith('access-control-')
      ? Action.Cors
      : Action.Pass;
  if (known.size < KNOWN_MAX) known.set(name, action);
  return action;
}

/** An upstream's headers by lower-case name; a list for a repeated one. */
export type UpstreamHeaders = Readonly<Record<string, string | string[] | undefined>>;

/**
 * The headers of an upstream's response for the caller.
 * @param extra appended; alternating names and values
 */
export function readResponseHead(
  upstream: UpstreamHeaders,
  status: number,
  policy: ResponsePolicy,
  requestId: string,
  extra: readonly string[] = NOTHING,
): ResponseHead {
  let headers: string[] = [];
  let contentLength = -1;
  let eventStream = false;
  let connection: string | undefined;
  for (const name in upstream) {
    const value = upstream[name];
    if (value === undefined) continue;
    switch (actionOf(name)) {
      case Action.Pass:
        append(headers, name, value);
        break;
      case Action.SetCookie:
        for (const cookie of typeof value === 'string' ? [value] : value)
          if (policy.maySetSession || !setsSessionCookie(cookie)) headers.push(name, cookie);
        break;
      case Action.ContentLength:
        if (status === 204) break;
        contentLength = Number(value);
        append(headers, name, value);
        break;
      case Action.ContentType:
        eventStream = EVENT_STREAM.test(String(value));
        append(headers, name, value);
        break;
      case Action.Connection:
        connection = String(value);
        break;
      case Action.Cors:
        if (!policy.ownCors) append(headers, name, value);
        break;
      case Action.NeedsTrust:
        if (policy.trustedOrigin) append(headers, name, value);
        break;
    }
  }
  if (connection !== undefined && connection !== 'keep-alive' && connection !== 'close')
    headers = withoutNamed(headers, connection);
  headers.push('x-request-id', requestId);
  if (!policy.trustedOrigin) headers.push('content-security-policy', 'sandbox');
  for (const nameOrValue of extra) headers.push(nameOrValue);
  return { headers, contentLength, eventStream };
}

const NOTHING: readonly string[] = [];
const EVENT_STREAM = /^\s*text\/event-stream\s*(?:;|$)/i;

function append(headers: string[], name: string, value: string | string[]): void {
  if (typeof value === 'string') headers.push(name, value);
  else for (const one of value) headers.push(name, one);
}

function withoutNamed(headers: string[], connection: string): string[] {
  const names = connection
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== 'content-length' && name !== 'content-type' && name !== 'set-cookie');
  return headers.filter((_, i) => !names.includes(headers[i - (i % 2)]!));
}
