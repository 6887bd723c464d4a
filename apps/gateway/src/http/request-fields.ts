import { REQUEST_ID_HEADER } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { FieldTable } from './fields.js';

/** What the gateway does with a field; `Pass`: its line goes on unread. */
export enum Action {
  Pass = 0,
  Drop,
  Authorization,
  Cookie,
  Host,
  ContentLength,
  ContentType,
  ContentEncoding,
  TransferEncoding,
  Connection,
  Upgrade,
  UserAgent,
  Origin,
  Expect,
  ForwardedFor,
  ForwardedProto,
  ForwardedHost,
  RequestId,
  MaxForwards,
  PassedBy,
  ForwardedMethod,
  ForwardedUri,
}

/** Names the gateway process that forwarded a request, so that it notices when its own request comes back to it. */
export const PASSED_BY_HEADER = 'x-latchkey-passed-by';
/** This process, in {@link PASSED_BY_HEADER}. */
export const OWN_NAME = newId();

const ACTIONS: Readonly<Record<string, Action>> = {
  authorization: Action.Authorization,
  cookie: Action.Cookie,
  host: Action.Host,
  'content-length': Action.ContentLength,
  'content-type': Action.ContentType,
  'content-encoding': Action.ContentEncoding,
  'transfer-encoding': Action.TransferEncoding,
  connection: Action.Connection,
  upgrade: Action.Upgrade,
  'user-agent': Action.UserAgent,
  origin: Action.Origin,
  expect: Action.Expect,
  'x-forwarded-for': Action.ForwardedFor,
  'x-forwarded-proto': Action.ForwardedProto,
  'x-forwarded-host': Action.ForwardedHost,
  [REQUEST_ID_HEADER]: Action.RequestId,
  'max-forwards': Action.MaxForwards,
  [PASSED_BY_HEADER]: Action.PassedBy,
  'x-forwarded-method': Action.ForwardedMethod,
  'x-forwarded-uri': Action.ForwardedUri,
  // Hop-by-hop (RFC 9110 section 7.6.1).
  'keep-alive': Action.Drop,
  'proxy-connection': Action.Drop,
  'proxy-authorization': Action.Drop,
  'proxy-authenticate': Action.Drop,
  te: Action.Drop,
  trailer: Action.Drop,
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

/** The gateway's reading of a field, by its name. */
export const REQUEST_FIELDS = new FieldTable((name) => {
  if (Object.hasOwn(ACTIONS, name)) return ACTIONS[name]!;
  const plain = normalHeaderName(name);
  return Object.hasOwn(ACTIONS, plain) || OWN.test(plain) ? Action.Drop : Action.Pass;
});

/** Lower case, other characters as "-". CGI and WSGI turn them into "_", so all such spellings are one name there. */
export function normalHeaderName(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, '-');
}
