import type { IncomingMessage } from 'node:http';
import { acceptsExplicitly, byMethod, type Exchange, Problem, readJson, sendJson, write } from './http.js';
import { isObject } from './input.js';
import { TOOLS, type Tool, type ToolOutcome, toolArguments } from './tools.js';

/** With an `initialize` handshake. */
const LEGACY_VERSIONS = ['2025-11-25', '2025-06-18'];
/** Stateless: each request carries its version in `_meta` and mirrors it in headers. */
const MODERN_VERSIONS = ['2026-07-28'];
const SUPPORTED = [...MODERN_VERSIONS, ...LEGACY_VERSIONS];

const SERVER_INFO = { name: 'latchkey-demo', title: 'Latchkey demo upstream', version: '0.2.0' };
const CAPABILITIES = { tools: {} };
const INSTRUCTIONS = 'Documents by project. Search first, then read; watch reports changes as they happen.';
const META = 'io.modelcontextprotocol/';
/** The tools are the same for everyone and change only with a new release. */
const TOOLS_TTL_MS = 3_600_000;

type Id = string | number;

interface Rpc {
  id: Id;
  method: string;
  params: Record<string, unknown>;
  meta: Record<string, unknown>;
  modern: boolean;
}

/** A JSON-RPC error with the HTTP status that the era of the request asks for. */
class RpcError extends Error {
  constructor(
    readonly code: number,
    message: string,
    readonly status = 200,
    readonly data?: unknown,
  ) {
    super(message);
  }
}

/**
 * `POST /mcp`: Model Context Protocol over Streamable HTTP, stateless, revisions 2026-07-28, 2025-11-25 and 2025-06-18.
 * One message a request; batches, dropped from the protocol in 2025-06-18, are -32600. Responses are JSON; a slow tool
 * responds with an event stream where the caller accepts one, with progress if it sent a `progressToken`.
 * @param originAllowed whether a browser's Origin may call (the specification asks for this check).
 */
export async function mcp(exchange: Exchange, originAllowed: (origin: string) => boolean): Promise<void> {
  const { request, response } = exchange;
  const { origin } = request.headers;
  if (origin !== undefined && !originAllowed(origin)) {
    throw new Problem(403, 'origin_not_allowed', 'Pages of this origin may not call the MCP endpoint.');
  }
  byMethod(request, { POST: true });

  let id: Id | undefined;
  try {
    const message = parseMessage(await readMessage(request));
    if (message.kind === 'no-response') return void response.writeHead(202).end();
    id = message.id;
    const rpc = { ...message, modern: checkEra(request, message) };
    await dispatch(exchange, rpc);
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    sendJson(exchange, error.status, {
      jsonrpc: '2.0',
      ...(id === undefined ? { id: null } : { id }),
      error: { code: error.code, message: error.message, ...(error.data === undefined ? {} : { data: error.data }) },
    });
  }
}

async function readMessage(request: IncomingMessage): Promise<unknown> {
  return readJson(request).catch((error: unknown) => {
    if (error instanceof Problem && error.code === 'invalid_json')
      throw new RpcError(-32700, 'Parse error: the body is not JSON in UTF-8', 400);
    throw error;
  });
}

type Message = { kind: 'no-response' } | ({ kind: 'request' } & Omit<Rpc, 'modern'>);

function parseMessage(body: unknown): Message {
  if (Array.isArray(body))
    throw new RpcError(-32600, 'Invalid request: one message a request; batches are not supported', 400);
  if (!isObject(body) || body['jsonrpc'] !== '2.0') {
    throw new RpcError(-32600, 'Invalid request: a JSON-RPC 2.0 object is needed', 400);
  }
  const { id, method, params = {} } = body;
  const isResponse = method === undefined && ('result' in body || 'error' in body);
  if (isResponse) return { kind: 'no-response' };
  if (typeof method !== 'string') throw new RpcError(-32600, 'Invalid request: method must be text', 400);
  if (id === undefined) return { kind: 'no-response' };
  if (typeof id !== 'string' && !Number.isSafeInteger(id)) {
    throw new RpcError(-32600, 'Invalid request: id must be text or a whole number', 400);
  }
  if (!isObject(params)) throw new RpcError(-32600, 'Invalid request: params must be an object', 400);
  const meta = params['_meta'] ?? {};
  if (!isObject(meta)) throw new RpcError(-32602, 'Invalid params: _meta must be an object', 400);
  return { kind: 'request', id: id as Id, method, params, meta };
}

/** Compares the mirrored headers with the body. True for a request of the stateless revisions. */
function checkEra(request: IncomingMessage, { method, params, meta }: Omit<Rpc, 'modern'>): boolean {
  const inHeader = request.headers['mcp-protocol-version'];
  const inBody = meta[`${META}protocolVersion`];
  const unsupported = (requested: unknown) =>
    new RpcError(-32022, 'Unsupported protocol version', 400, { supported: SUPPORTED, requested });

  const modern = inBody !== undefined || method === 'server/discover' || MODERN_VERSIONS.includes(String(inHeader));
  if (!modern) {
    if (inHeader !== undefined && !LEGACY_VERSIONS.includes(String(inHeader))) throw unsupported(inHeader);
    return false;
  }

  if (typeof inBody !== 'string')
    throw new RpcError(-32602, `Invalid params: _meta["${META}protocolVersion"] is required`, 400);
  mirrored('MCP-Protocol-Version', inHeader, inBody);
  if (!MODERN_VERSIONS.includes(inBody)) throw unsupported(inBody);
  if (!isObject(meta[`${META}clientCapabilities`])) {
    throw new RpcError(-32602, `Invalid params: _meta["${META}clientCapabilities"] is required`, 400);
  }
  mirrored('Mcp-Method', request.headers['mcp-method'], method);
  if (method === 'tools/call') mirrored('Mcp-Name', decodeSentinel(request.headers['mcp-name']), params['name']);
  return true;
}

function mirrored(header: string, given: string | string[] | undefined, inBody: unknown): void {
  if (given === inBody) return;
  const why = given === undefined ? 'is missing' : 'does not match the body';
  throw new RpcError(-32020, `Header mismatch: ${header} ${why}`, 400);
}

/** `=?base64?…?=` stands for text that a header cannot carry as it is. */
function decodeSentinel(value: string | string[] | undefined): string | string[] | undefined {
  const encoded = typeof value === 'string' ? /^=\?base64\?([A-Za-z0-9+/]*={0,2})\?=$/.exec(value) : null;
  return encoded ? Buffer.from(encoded[1]!, 'base64').toString('utf8') : value;
}

async function dispatch(exchange: Exchange, rpc: Rpc): Promise<void> {
  const reply = (result: object) =>
    sendJson(exchange, 200, { jsonrpc: '2.0', id: rpc.id, result: finished(rpc, result) });
  switch (rpc.method) {
    case 'tools/list':
      if (rpc.params['cursor'] !== undefined)
        throw new RpcError(-32602, 'Invalid params: cursor is not one of this server');
      return reply({
        tools: [...TOOLS.values()].map(describe),
        ...(rpc.modern ? { ttlMs: TOOLS_TTL_MS, cacheScope: 'public' } : {}),
      });
    case 'tools/call':
      return callTool(exchange, rpc);
    case 'server/discover':
      return reply({
        supportedVersions: SUPPORTED,
        capabilities: CAPABILITIES,
        instructions: INSTRUCTIONS,
        ttlMs: TOOLS_TTL_MS,
        cacheScope: 'public',
      });
    case 'initialize':
    case 'ping':
      if (rpc.modern) break;
      return reply(rpc.method === 'ping' ? {} : initialize(rpc));
  }
  throw new RpcError(-32601, `Method not found: ${rpc.method.slice(0, 100)}`, rpc.modern ? 404 : 200);
}

function initialize({ params }: Rpc): object {
  const wanted = params['protocolVersion'];
  if (typeof wanted !== 'string') throw new RpcError(-32602, 'Invalid params: protocolVersion must be text');
  const protocolVersion = LEGACY_VERSIONS.includes(wanted) ? wanted : LEGACY_VERSIONS[0];
  return { protocolVersion, capabilities: CAPABILITIES, serverInfo: SERVER_INFO, instructions: INSTRUCTIONS };
}

function describe({ name, title, description, inputSchema, annotations }: Tool): object {
  return { name, title, description, inputSchema, annotations };
}

/** Adds what the stateless revisions want in every result. */
function finished({ modern }: Rpc, result: object): object {
  if (!modern) return result;
  const own = isObject(result) && isObject(result['_meta']) ? result['_meta'] : {};
  return { ...result, resultType: 'complete', _meta: { ...own, [`${META}serverInfo`]: SERVER_INFO } };
}

async function callTool(exchange: Exchange, rpc: Rpc): Promise<void> {
  const { request, response, store, caller, signal } = exchange;
  const { name } = rpc.params;
  const tool = typeof name === 'string' ? TOOLS.get(name) : undefined;
  if (!tool) throw new RpcError(-32602, `Invalid params: unknown tool ${String(name).slice(0, 100)}`);
  const input = toolArguments(rpc.params['arguments']);
  if (!input) throw new RpcError(-32602, 'Invalid params: arguments must be an object');

  const toResponse = (outcome: ToolOutcome) => ({
    jsonrpc: '2.0',
    id: rpc.id,
    result: finished(rpc, {
      content: [{ type: 'text', text: outcome.text }],
      ...(outcome.ok ? { structuredContent: outcome.data, isError: false } : { isError: true }),
      _meta: { 'dev.latchkey.demo/caller': caller },
    }),
  });
  const streamed = tool.slow && acceptsExplicitly(request, 'text/event-stream');
  if (!streamed) {
    const outcome = await tool.run(input, { store, caller, signal, progress: async () => undefined });
    return sendJson(exchange, 200, toResponse(outcome));
  }

  const { progressToken } = rpc.meta;
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  });
  response.flushHeaders();
  const send = (message: object) => write(response, `event: message\ndata: ${JSON.stringify(message)}\n\n`, signal);
  const progress = async (done: number, total: number, message: string) => {
    if (typeof progressToken !== 'string' && !Number.isSafeInteger(progressToken)) {
      // A comment line: it stops proxies from closing the stream, and readers skip it.
      await write(response, ': at work\n\n', signal);
      return;
    }
    await send({
      jsonrpc: '2.0',
      method: 'notifications/progress',
      params: { progressToken, progress: done, total, message },
    });
  };
  const outcome = await tool.run(input, { store, caller, signal, progress });
  if (!signal.aborted) await send(toResponse(outcome));
  response.end();
}
