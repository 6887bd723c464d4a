import { LIMITS } from '@latchkey/contracts';
import { Backlog, type CallerRequest } from '../engine/index.js';
import type { ErrorResponse, RequestHead } from '../http/index.js';

export type McpBody = { readonly text: string } | { readonly error: ErrorResponse };
/** Scopes that the messages require together, their number, and the body to forward: what was checked, serialized again. */
export type McpRequirement =
  | { readonly scopes: readonly string[]; readonly messages: number; readonly body: Buffer }
  | { readonly error: ErrorResponse }
  /** A tool or method that the route does not offer to any token. */
  | { readonly notOffered: string };

const refuse = (detail: string, code: ErrorResponse['code'] = 'invalid_request') => ({ error: { code, detail } });

const JSON_IN_UTF8 = /^application\/json[\t ]*(?:;[\t ]*charset=(?:utf-8|"utf-8")[\t ]*)?$/i;

/** Reads the body of an MCP message: JSON in UTF-8, at most `LIMITS.jsonBodyBytesMax`. */
export async function readMcpBody(request: CallerRequest, idleMs: number): Promise<McpBody> {
  const { head } = request;
  // The field goes on as it is: in another charset the upstream would read another message than was checked.
  if (!JSON_IN_UTF8.test(head.contentType ?? ''))
    return refuse('Send the message as application/json, in UTF-8.', 'unsupported_media_type');
  if (head.contentEncoding !== undefined && head.contentEncoding.toLowerCase() !== 'identity')
    return refuse('Send the message without a content coding, so that it can be checked.', 'unsupported_media_type');
  const tooLarge = refuse(`A message can have at most ${LIMITS.jsonBodyBytesMax} bytes.`, 'too_large');
  if (head.contentLength > LIMITS.jsonBodyBytesMax) return tooLarge;

  const content = new Backlog();
  const ending = await new Promise<'complete' | 'broken' | 'malformed' | 'stalled' | 'late' | 'too large'>(
    (resolve) => {
      if (!head.hasBody) return resolve('complete');
      const timer = setTimeout(() => resolve('stalled'), idleMs);
      const end = (how: 'complete' | 'broken' | 'malformed' | 'late' | 'too large') => {
        clearTimeout(timer);
        resolve(how);
      };
      request.responder = {
        onCallerClose: () => end('broken'),
        onCallerDrain: () => undefined,
        onTimeout: () => end('late'),
      };
      if (head.expectsContinue) request.interim(100, 'Continue', '');
      request.readBody(
        {
          onBody: (bytes) => {
            timer.refresh();
            if ((content.bytes?.length ?? 0) + bytes.length > LIMITS.jsonBodyBytesMax) end('too large');
            else content.add(bytes);
          },
          onBodyEnd: () => end('complete'),
          onBodyMalformed: () => end('malformed'),
        },
        true,
      );
    },
  );
  if (ending === 'malformed') return refuse('The chunks of the body are not well-formed.');
  if (ending === 'broken') return refuse('The body ended before it was complete.');
  if (ending === 'too large') return tooLarge;
  if (ending === 'stalled') return refuse(`No more of the body arrived for ${idleMs} ms.`, 'request_timeout');
  if (ending === 'late') return refuse('The request did not arrive in time.', 'request_timeout');
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content.bytes) };
  } catch {
    return refuse('The body is not valid UTF-8.');
  }
}

type JsonObject = Record<string, unknown>;
const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Names that decide what a message does. Some servers read them in any case, so other spellings are refused. */
const RESERVED = new Set(['jsonrpc', 'id', 'method', 'params', 'name', 'arguments']);
/** These neither change anything nor return a tool's data; all other methods but tools/call require the scopes of `*`. */
const OPEN_METHODS = new Set(['initialize', 'ping', 'tools/list', 'server/discover']);

/**
 * Finds the scopes that the messages of a body require. The body is serialized again from what was read, so that a
 * repeated name has one value for the upstream too.
 * @param tools scopes by tool, `*` for all others; a tool without an entry is refused
 */
export function inspectMcp(
  text: string,
  tools: ReadonlyMap<string, readonly string[]>,
  head: RequestHead,
): McpRequirement {
  let body: unknown;
  try {
    body = JSON.parse(text, preserveNumbers);
  } catch {
    return refuse('The body is not valid JSON.');
  }
  const messages = Array.isArray(body) ? body : [body];
  if (messages.length === 0 || messages.length > LIMITS.jsonRpcBatchMax)
    return refuse(`A batch must have 1 to ${LIMITS.jsonRpcBatchMax} messages.`);
  const scopes = new Set<string>();
  for (const message of messages) {
    if (!isObject(message)) return refuse('A message must be a JSON object.');
    const { method, params } = message;
    const misspelt = misspeltName(message) ?? (isObject(params) ? misspeltName(params) : undefined);
    if (misspelt !== undefined)
      return refuse(`"${misspelt.slice(0, 50)}" is not a valid JSON-RPC name; names are case-sensitive.`);
    if (method === undefined && ('result' in message || 'error' in message)) continue;
    if (typeof method !== 'string') return refuse('A message must name its method.');
    const name = isObject(params) ? params['name'] : undefined;
    if (method === 'tools/call' && typeof name !== 'string') return refuse('tools/call must name its tool.');
    if (messages.length > 1 ? mirrors(head) : !mirrorsAgree(head, method, name))
      return refuse('The headers Mcp-Method and Mcp-Name do not match the body.');
    const required = scopesOf(method, name, tools);
    if (!required)
      return { notOffered: method === 'tools/call' ? `tool ${String(name).slice(0, 100)}` : method.slice(0, 100) };
    for (const scope of required) scopes.add(scope);
  }
  return { scopes: [...scopes], messages: messages.length, body: Buffer.from(JSON.stringify(body)) };
}

function scopesOf(
  method: string,
  tool: unknown,
  tools: ReadonlyMap<string, readonly string[]>,
): readonly string[] | undefined {
  if (OPEN_METHODS.has(method) || method.startsWith('notifications/')) return [];
  return (method === 'tools/call' ? tools.get(tool as string) : undefined) ?? tools.get('*');
}

/** A name that differs from a reserved one only in its case. Case folding is Unicode's, as in some servers. */
function misspeltName(object: JsonObject): string | undefined {
  return Object.keys(object).find((name) => {
    if (RESERVED.has(name)) return false;
    const folded = name.normalize('NFKC').toUpperCase().toLowerCase();
    return RESERVED.has(folded);
  });
}

const mirrors = (head: RequestHead) => head.header('mcp-method') !== undefined || head.header('mcp-name') !== undefined;

/** Later revisions repeat method and tool in headers, which a server can route by: they must match. */
function mirrorsAgree(head: RequestHead, method: string, name: unknown): boolean {
  const headerMethod = head.header('mcp-method');
  const headerName = head.header('mcp-name');
  if (headerMethod !== undefined && headerMethod !== method) return false;
  if (headerName === undefined || method !== 'tools/call') return true;
  const encoded = /^=\?base64\?([A-Za-z0-9+/]*={0,2})\?=$/.exec(headerName);
  return (encoded ? Buffer.from(encoded[1]!, 'base64').toString('utf8') : headerName) === name;
}

/** Preserves the digits of numbers: 64-bit ids do not fit JavaScript's. */
function preserveNumbers(_name: string, value: unknown, context?: { source?: string }): unknown {
  const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
  return typeof value === 'number' && context?.source !== undefined && String(value) !== context.source
    ? rawJSON(context.source)
    : value;
}
