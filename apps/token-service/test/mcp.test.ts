import type { IssuedToken, Token } from '@latchkey/contracts';
import { type ApiResponse, issue, type Person, type World, world } from './harness.js';

let w: World;
let person: Person;
let full: Person;
let reader: Person;
beforeAll(async () => {
  w = await world();
  person = await w.member();
  full = w.bearer((await issue(person, { name: 'assistant', scopes: ['tokens:read', 'tokens:write'] })).secret);
  reader = w.bearer((await issue(person, { scopes: ['tokens:read'] })).secret);
});
afterAll(() => w.close());

interface Result {
  id: number;
  result: {
    structuredContent: Record<string, unknown>;
    isError?: boolean;
    content: { text: string }[];
    tools?: { name: string; inputSchema: { type: string } }[];
  };
  error: { code: number; message: string };
}
let lastId = 0;
const message = (method: string, params: object = {}) => ({ jsonrpc: '2.0', id: ++lastId, method, params });
const toolCall = (name: string, args: object = {}) => message('tools/call', { name, arguments: args });
const post = (caller: Person, body: unknown, headers: Record<string, string> = {}) =>
  caller.call<Result>('POST /mcp', { body, headers }) as Promise<ApiResponse<Result>>;
const useTool = async (caller: Person, name: string, args: object = {}) =>
  (await post(caller, toolCall(name, args))).body.result;

test('the MCP endpoint introduces itself and lists its six tools with schemas', async () => {
  const hello = await post(
    full,
    message('initialize', { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 't', version: '1' } }),
  );
  expect(hello.body.result).toMatchObject({
    protocolVersion: '2025-06-18',
    capabilities: { tools: {} },
    serverInfo: { name: 'latchkey' },
  });
  const other = await post(full, message('initialize', { protocolVersion: '1999-01-01' }));
  expect(other.body.result).toMatchObject({ protocolVersion: '2025-11-25' });
  expect((await post(full, { jsonrpc: '2.0', method: 'notifications/initialized' })).status).toBe(202);
  const { tools } = (await post(full, message('tools/list'))).body.result;
  expect(tools!.map(({ name }) => name)).toEqual([
    'whoami',
    'list_tokens',
    'create_token',
    'rotate_token',
    'revoke_token',
    'token_usage',
  ]);
  for (const { inputSchema } of tools!) expect(inputSchema.type).toBe('object');
});

test('over MCP a token manages tokens within its own bounds', async () => {
  expect((await useTool(full, 'whoami')).structuredContent).toMatchObject({ name: 'assistant' });
  const made = (await useTool(full, 'create_token', { name: 'made', scopes: ['tokens:read'] }))
    .structuredContent as unknown as IssuedToken;
  expect(made.secret).toMatch(/^lk_pat_/);
  const { items } = (await useTool(full, 'list_tokens', { q: 'made' })).structuredContent as { items: Token[] };
  expect(items.map(({ id }) => id)).toEqual([made.id]);
  const rotated = (await useTool(full, 'rotate_token', { id: made.id })).structuredContent as unknown as IssuedToken;
  expect(rotated.rotatedFrom).toBe(made.id);
  expect((await useTool(full, 'token_usage', { id: rotated.id })).structuredContent).toMatchObject({ total: 0 });
  expect(
    (await useTool(full, 'revoke_token', { id: rotated.id, reason: 'no_longer_needed' })).structuredContent,
  ).toMatchObject({ effective: true });
  expect((await w.bearer(rotated.secret).call('/v1/tokens/self')).status).toBe(401);
});

test('errors that an assistant can correct are returned as the result of the MCP tool', async () => {
  expect(await useTool(full, 'create_token', { name: '' })).toMatchObject({
    isError: true,
    content: [{ text: expect.stringContaining('name') }],
  });
  expect(await useTool(full, 'revoke_token', { id: '01890000-0000-7000-8000-000000000000' })).toMatchObject({
    isError: true,
  });
});

describe('a missing scope over MCP', () => {
  test('an MCP tool call without its scope gets 403 with the challenge', async () => {
    const response = await post(reader, toolCall('create_token', { name: 'x' }));
    expect(response.status).toBe(403);
    expect(response.headers.get('www-authenticate')).toBe(
      'Bearer realm="latchkey", error="insufficient_scope", scope="tokens:write"',
    );
  });

  test('an MCP batch with one call that lacks its scope is rejected, and none of it is done', async () => {
    const other = w.bearer((await issue(person, { scopes: ['tokens:write'] })).secret);
    const before = (await person.call<{ items: Token[] }>('/v1/tokens')).body.items.length;
    const response = await post(other, [toolCall('create_token', { name: 'in a batch' }), toolCall('list_tokens')]);
    expect(response.status).toBe(403);
    expect((await person.call<{ items: Token[] }>('/v1/tokens')).body.items.length).toBe(before);
  });

  test('issuing over MCP a scope that the token cannot grant gets 403', async () => {
    const response = await post(full, toolCall('create_token', { name: 'x', scopes: ['demo:read'] }));
    expect(response.status).toBe(403);
    expect(response.headers.get('www-authenticate')).toContain('scope="demo:read"');
  });
});

test('responses to an MCP batch are in its order', async () => {
  const messages = [
    toolCall('whoami'),
    { jsonrpc: '2.0', method: 'notifications/x' },
    message('ping'),
    message('nothing/there'),
  ];
  const replies = (await post(full, messages)).body as unknown as Result[];
  expect(replies.map(({ id }) => id)).toEqual(
    [messages[0], messages[2], messages[3]].map((one) => (one as unknown as { id: number }).id),
  );
  expect(replies[2]!.error.code).toBe(-32601);
});

test('in an MCP batch no message runs after the one that revokes the token in use', async () => {
  const own = await issue(person, { scopes: ['tokens:read', 'tokens:write'] });
  const messages = [toolCall('revoke_token', { id: own.id }), toolCall('list_tokens'), message('ping')];
  const replies = (await post(w.bearer(own.secret), messages)).body as unknown as Result[];
  expect(replies[0]!.result.structuredContent).toMatchObject({ effective: true });
  expect(replies.slice(1).map(({ result, error }) => [result, error.code])).toEqual([
    [undefined, -32600],
    [undefined, -32600],
  ]);
});

test.each<[string, unknown, number, number | undefined]>([
  ['a body that is not JSON-RPC', { hello: 1 }, 400, -32600],
  ['a string', 'hello', 400, -32600],
  ['an empty batch', [], 400, undefined],
  ['a huge batch', Array.from({ length: 21 }, () => message('ping')), 400, undefined],
  ['an unknown tool', toolCall('delete_everything'), 200, -32602],
  ['arguments that are not an object', message('tools/call', { name: 'whoami', arguments: [] }), 200, -32602],
])('the MCP endpoint rejects %s', async (_, body, status, code) => {
  const response = await post(full, body);
  expect(response.status).toBe(status);
  if (code) expect(response.body.error.code).toBe(code);
});

describe('the MCP endpoint', () => {
  test('the MCP endpoint requires a token; a cookie is not accepted', async () => {
    expect((await post(w.as(), message('ping'))).status).toBe(401);
    expect((await post(person, message('ping'))).status).toBe(401);
  });

  test('the MCP endpoint rejects a foreign origin and an unknown protocol version', async () => {
    expect((await post(full, message('ping'), { origin: 'https://evil.example' })).status).toBe(403);
    expect((await post(full, message('ping'), { 'mcp-protocol-version': '1999-01-01' })).status).toBe(400);
    expect((await post(full, message('ping'), { 'mcp-protocol-version': '2025-11-25' })).status).toBe(200);
  });

  test.each(['GET', 'DELETE'])('%s /mcp returns 405', async (method) => {
    const response = await full.call(`${method} /mcp`);
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST']);
  });
});
