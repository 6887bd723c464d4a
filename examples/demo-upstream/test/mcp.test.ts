import type { DemoUpstream } from '../src/index.js';
import { identity, jsonOf, OTHER, PROJECT, readEvents, start } from './start.js';

let demo: DemoUpstream;
beforeAll(async () => {
  demo = await start();
});
afterAll(() => demo.close());

const ACCEPT = 'application/json, text/event-stream';

function post(body: unknown, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> {
  return fetch(`${demo.url}/mcp`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: ACCEPT, ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });
}
async function rpc(method: string, params?: object, headers: Record<string, string> = {}) {
  const response = await post({ jsonrpc: '2.0', id: 1, method, params }, headers);
  return { status: response.status, type: response.headers.get('content-type'), body: await jsonOf(response) };
}
const tool = (name: string, args: object, headers?: Record<string, string>) =>
  rpc('tools/call', { name, arguments: args }, headers);

describe('handshake revisions', () => {
  it('agree on the version asked for, or offer the newest', async () => {
    const initialize = (protocolVersion: unknown) =>
      rpc('initialize', { protocolVersion, capabilities: {}, clientInfo: { name: 't', version: '1' } });
    for (const [asked, agreed] of [
      ['2025-06-18', '2025-06-18'],
      ['2025-11-25', '2025-11-25'],
      ['2024-11-05', '2025-11-25'],
    ]) {
      expect((await initialize(asked)).body).toMatchObject({
        id: 1,
        result: { protocolVersion: agreed, capabilities: { tools: {} }, serverInfo: { name: 'latchkey-demo' } },
      });
    }
    expect((await initialize(7)).body.error.code).toBe(-32602);
  });

  it('accept notifications and responses with 202 and no body', async () => {
    for (const message of [
      { jsonrpc: '2.0', method: 'notifications/initialized' },
      { jsonrpc: '2.0', id: 9, result: {} },
    ]) {
      const response = await post(message, { 'mcp-protocol-version': '2025-11-25' });
      expect([response.status, await response.text()]).toEqual([202, '']);
    }
  });

  it('respond to ping, and list four tools with schemas', async () => {
    expect((await rpc('ping')).body).toEqual({ jsonrpc: '2.0', id: 1, result: {} });
    const { tools } = (await rpc('tools/list')).body.result;
    expect(tools.map(({ name }: { name: string }) => name)).toEqual([
      'search',
      'read_document',
      'create_document',
      'watch',
    ]);
    for (const { inputSchema } of tools)
      expect(inputSchema).toMatchObject({ type: 'object', required: expect.arrayContaining(['project']) });
  });

  it('refuse an unknown version with 400', async () => {
    const { status, body } = await rpc('ping', undefined, { 'mcp-protocol-version': '1900-01-01' });
    expect([status, body.error.data.supported]).toEqual([400, ['2026-07-28', '2025-11-25', '2025-06-18']]);
  });
});

describe('the stateless revision', () => {
  const meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientCapabilities': {},
  };
  const modern = (method: string, params: object = {}, headers: Record<string, string> = {}) =>
    rpc(method, { ...params, _meta: meta }, { 'mcp-protocol-version': '2026-07-28', 'mcp-method': method, ...headers });

  it('discovers without a handshake, and calls a tool', async () => {
    const found = await modern('server/discover');
    expect(found.body.result).toMatchObject({
      resultType: 'complete',
      supportedVersions: expect.arrayContaining(['2026-07-28']),
      cacheScope: 'public',
    });
    expect((await modern('tools/list')).body.result).toMatchObject({
      resultType: 'complete',
      ttlMs: expect.any(Number),
    });
    const called = await modern(
      'tools/call',
      { name: 'search', arguments: { project: PROJECT, query: 'mirror' } },
      { 'mcp-name': 'search' },
    );
    expect(called.body.result).toMatchObject({
      resultType: 'complete',
      isError: false,
      _meta: { 'io.modelcontextprotocol/serverInfo': { name: 'latchkey-demo' } },
    });
    const encoded = `=?base64?${Buffer.from('search').toString('base64')}?=`;
    expect(
      (
        await modern(
          'tools/call',
          { name: 'search', arguments: { project: PROJECT, query: 'x' } },
          { 'mcp-name': encoded },
        )
      ).status,
    ).toBe(200);
  });

  it('refuses headers that differ from the body', async () => {
    const call = { name: 'search', arguments: { project: PROJECT, query: 'x' } };
    const wrong: Record<string, string>[] = [
      { 'mcp-method': 'tools/list', 'mcp-name': 'search' },
      { 'mcp-name': 'watch' },
      { 'mcp-protocol-version': '2025-11-25', 'mcp-name': 'search' },
      {},
    ];
    for (const headers of wrong) {
      expect(await modern('tools/call', call, headers)).toMatchObject({
        status: 400,
        body: { id: 1, error: { code: -32020 } },
      });
    }
  });

  it('refuses other versions, missing metadata, and what the revision has dropped', async () => {
    const future = { ...meta, 'io.modelcontextprotocol/protocolVersion': '2099-01-01' };
    expect(await rpc('tools/list', { _meta: future }, { 'mcp-protocol-version': '2099-01-01' })).toMatchObject({
      status: 400,
      body: { error: { code: -32022, data: { requested: '2099-01-01' } } },
    });
    expect(await rpc('tools/list', {}, { 'mcp-protocol-version': '2026-07-28' })).toMatchObject({
      status: 400,
      body: { error: { code: -32602 } },
    });
    for (const method of ['ping', 'initialize', 'resources/list']) {
      expect(await modern(method)).toMatchObject({ status: 404, body: { error: { code: -32601 } } });
    }
  });
});

describe('messages', () => {
  it.each([
    [-32700, '{"jsonrpc":'],
    [-32600, [{ jsonrpc: '2.0', id: 1, method: 'ping' }]],
    [-32600, []],
    [-32600, 'null'],
    [-32600, { id: 1, method: 'ping' }],
    [-32600, { jsonrpc: '2.0', id: 1 }],
    [-32600, { jsonrpc: '2.0', id: null, method: 'ping' }],
    [-32600, { jsonrpc: '2.0', id: 1.5, method: 'ping' }],
    [-32600, { jsonrpc: '2.0', id: 1, method: 'ping', params: [1] }],
    [-32602, { jsonrpc: '2.0', id: 1, method: 'ping', params: { _meta: 1 } }],
  ])('are refused with %i and 400: %j', async (code, body) => {
    const response = await post(body);
    expect([response.status, (await jsonOf(response)).error.code]).toEqual([400, code]);
  });

  it('are refused when the method, tool, cursor or arguments are unknown', async () => {
    expect((await rpc('resources/list')).body.error.code).toBe(-32601);
    expect((await rpc('tools/call', { name: 'rm' })).body.error.code).toBe(-32602);
    expect((await rpc('tools/call', { name: 'search', arguments: [] })).body.error.code).toBe(-32602);
    expect((await rpc('tools/list', { cursor: 'x' })).body.error.code).toBe(-32602);
  });

  it('are refused by other methods, media types and foreign pages', async () => {
    for (const method of ['GET', 'DELETE']) expect((await fetch(`${demo.url}/mcp`, { method })).status).toBe(405);
    expect((await post('x', { 'content-type': 'text/plain' })).status).toBe(415);
    expect((await post({ jsonrpc: '2.0', id: 1, method: 'ping' }, { origin: 'https://evil.example' })).status).toBe(
      403,
    );
    for (const origin of ['http://localhost:3000', 'https://api.example.org']) {
      expect((await post({ jsonrpc: '2.0', id: 1, method: 'ping' }, { origin })).status).toBe(200);
    }
  });
});

describe('tools', () => {
  it('write, find and read a document in the name of the caller', async () => {
    const written = await tool(
      'create_document',
      { project: PROJECT, title: 'Tool-made', body: 'unusualword' },
      identity(),
    );
    const { document } = written.body.result.structuredContent;
    expect(document.updatedBy).toBe('user:01890000-0000-7000-8000-0000000000bb');
    expect(written.body.result._meta['dev.latchkey.demo/caller'].requestId).toBe('req-1');
    const found = await tool('search', { project: PROJECT, query: 'UNUSUALWORD' });
    expect(found.body.result.structuredContent.documents).toEqual([{ id: document.id, title: 'Tool-made' }]);
    expect((await tool('read_document', { project: PROJECT, id: document.id })).body.result.content[0].text).toContain(
      'unusualword',
    );
  });

  it('explain what was wrong with the arguments, and are limited to the project named', async () => {
    for (const [name, args, text] of [
      ['search', { project: 'x', query: 'y' }, 'project'],
      ['search', { project: PROJECT }, 'query'],
      ['search', { project: PROJECT, query: 'y', colour: 1 }, 'colour'],
      ['create_document', { project: PROJECT, title: '' }, 'title'],
      ['read_document', { project: PROJECT, id: 'x' }, 'id'],
      ['watch', { project: PROJECT, seconds: 0 }, 'seconds'],
      ['search', { project: OTHER, query: 'rye' }, 'project'],
    ] as const) {
      const { status, body } = await tool(name, args, { ...identity(PROJECT), accept: 'application/json' });
      expect([status, body.result.isError]).toEqual([200, true]);
      expect(body.result.content[0].text).toContain(text);
    }
  });
});

describe('watch', () => {
  const message = (args: object, progressToken?: string) => ({
    jsonrpc: '2.0',
    id: 'w',
    method: 'tools/call',
    params: {
      name: 'watch',
      arguments: { project: PROJECT, ...args },
      ...(progressToken ? { _meta: { progressToken } } : {}),
    },
  });

  it('streams rising progress and then the result, with what changed meanwhile', async () => {
    const response = await post(message({ seconds: 1, intervalMs: 100 }, 'p'));
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    await tool('create_document', { project: PROJECT, title: 'While watching' });
    const messages = [];
    for await (const { data } of readEvents(response.body!))
      messages.push(data as { method?: string; params?: { progress: number; progressToken: string }; result?: object });
    const progress = messages.filter(({ method }) => method === 'notifications/progress').map(({ params }) => params!);
    expect(progress.map((p) => p.progress)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(new Set(progress.map((p) => p.progressToken))).toEqual(new Set(['p']));
    expect(messages.at(-1)).toMatchObject({
      id: 'w',
      result: { structuredContent: { changes: [{ title: 'While watching' }] } },
    });
  });

  it('responds with JSON to a caller that accepts no stream', async () => {
    const response = await post(message({ seconds: 1, intervalMs: 1000 }), { accept: 'application/json' });
    expect(response.headers.get('content-type')).toContain('application/json');
    expect(await jsonOf(response)).toMatchObject({ id: 'w', result: { isError: false } });
  });

  it('ends when the server stops', async () => {
    const own = await start();
    const response = await fetch(`${own.url}/mcp`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: ACCEPT },
      body: JSON.stringify(message({ seconds: 300 }, 'p')),
    });
    await own.close();
    const seen = [];
    for await (const { data } of readEvents(response.body!)) seen.push(data);
    expect(seen).toEqual([]);
  });
});
