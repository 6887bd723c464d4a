import { setsSessionCookie } from './request-head.js';

/** What the gateway decides about a proxied answer's headers. */
export interface ResponsePolicy {
  /** The upstream may act as the console's origin, and keep the headers that need that. */
  readonly trustedOrigin: boolean;
  /** The management API may set the session cookie; nobody else may. */
  readonly maySetSession: boolean;
  /** The route answers cross-origin questions itself. */
  readonly ownCors: boolean;
  /** Appended, name and value by turns. */
  readonly added: readonly string[];
}

export interface ResponseHead {
  /** Name and value by turns, for `writeHead`. */
  readonly headers: string[];
  /** Bytes; -1 when the answer says none. */
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
  // These speak for the whole origin, which is the console's too.
  'clear-site-data': Action.NeedsTrust,
  'service-worker-allowed': Action.NeedsTrust,
  'strict-transport-security': Action.NeedsTrust,
  'alt-svc': Action.NeedsTrust,
  nel: Action.NeedsTrust,
  'report-to': Action.NeedsTrust,
  'reporting-endpoints': Action.NeedsTrust,
};

/** By the spelling that came; bounded. */
const known = new Map<string, Action>();
const KNOWN_MAX = 4_000;

function actionOf(name: string): Action {
  const remembered = known.get(name);
  if (remembered !== undefined) return remembered;
  const lower = name.toLowerCase();
  const action = Object.hasOwn(ACTIONS, lower)
    ? ACTIONS[lower]!
    : lower.startsWith('access-control-')
      ? Action.Cors
      : Action.Pass;
  if (known.size < KNOWN_MAX) known.set(name, action);
  return action;
}

/**
 * The headers of an upstream's answer as they go out.
 * @param raw names and values by turns, as undici gives them
 */
export function readResponseHead(
  raw: readonly (Buffer | string)[],
  status: number,
  policy: ResponsePolicy,
): ResponseHead {
  let headers: string[] = [];
  let contentLength = -1;
  let eventStream = false;
  let connection: string | undefined;
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!);
    const value = text(raw[i + 1]!);
    switch (actionOf(name)) {
      case Action.Pass:
        headers.push(name, value);
        break;
      case Action.SetCookie:
        if (policy.maySetSession || !setsSessionCookie(value)) headers.push(name, value);
        break;
      case Action.ContentLength:
        if (status === 204) break;
        contentLength = Number(value);
        headers.push(name, value);
        break;
      case Action.ContentType:
        eventStream = /^\s*text\/event-stream\s*(?:;|$)/i.test(value);
        headers.push(name, value);
        break;
      case Action.Connection:
        connection = value;
        break;
      case Action.Cors:
        if (!policy.ownCors) headers.push(name, value);
        break;
      case Action.NeedsTrust:
        if (policy.trustedOrigin) headers.push(name, value);
        break;
    }
  }
  if (connection !== undefined && !/^(?:keep-alive|close)$/i.test(connection))
    headers = withoutNamed(headers, connection);
  for (const part of policy.added) headers.push(part);
  return { headers, contentLength, eventStream };
}

const text = (part: Buffer | string) => (typeof part === 'string' ? part : part.toString('latin1'));

function withoutNamed(headers: string[], connection: string): string[] {
  const names = connection
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== 'content-length' && name !== 'content-type' && name !== 'set-cookie');
  return headers.filter((_, i) => !names.includes(headers[i - (i % 2)]!.toLowerCase()));
}
