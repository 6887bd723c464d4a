import { request } from 'undici';
import { type Stack, stack } from './stack.js';

let s: Stack;
let bodies: string[];
beforeAll(async () => {
  s = await stack(
    (upstream) => `
routes:
  - name: tools
    path: /tools/mcp
    kind: mcp
    upstream: ${upstream}/mcp
    tools: { search: [demo:read], "*": [demo:write] }
  - name: closed
    path: /closed/mcp
    kind: mcp
    upstream: ${upstream}/mcp
    require: { scopes: { "*": [demo:list] } }
    tools: { search: [demo:read] }
`,
    { BODY_IDLE_MS: '400' },
  );
});
afterAll(async () => s[Symbol.asyncDispose]());
beforeEach(() => {
  bodies = [];
  s.upstream.handler = (req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      bodies.push(Buffer.concat(chunks).toString());
      res.writeHead(200, { 'content-type': 'application/json' }).end('{"jsonrpc":"2.0","id":1,"result":{}}');
    });
  };
});

const call = (name: string, id: unknown = 1) => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: { q: 'x' } },
});

async function post(
  secret: string,
  body: string | Buffer | object,
  headers: Record<string, string> = {},
  path = '/tools/mcp',
) {
  const response = await request(`${s.gateway.url}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
  });
  return {
    status: response.statusCode,
    headers: response.headers,
    body: (await response.body.json()) as { detail?: string },
  };
}
const reader = () => s.authority.issue({ scopes: ['demo:read'] }).secret;
const writer = () => s.authority.issue({ scopes: ['demo:read', 'demo:write'] }).secret;

describe('an MCP route', () => {
  it('allows a tool for a token with its scopes, and forwards to the MCP endpoint', async () => {
    expect((await post(reader(), call('search'))).status).toBe(200);
    expect(s.upstream.seen.at(-1)!.url).toBe('/mcp');
    expect(JSON.parse(bodies[0]!)).toEqual(call('search'));
    expect(s.upstream.lastHeader('content-length')).toBe(String(Buffer.byteLength(bodies[0]!)));
  });

  it('responds 403 with the challenge to a tool call without its scopes', async () => {
    const response = await post(reader(), call('create'));
    expect(response.status).toBe(403);
    expect(response.headers['www-authenticate']).toBe(
      'Bearer realm="latchkey", error="insufficient_scope", scope="demo:write"',
    );
    expect((await post(writer(), call('create'))).status).toBe(200);
  });

  it('responds 503 to a token from before an unsettled restore, before it reads the body', async () => {
    const response = await post(s.authority.issue({ denial: 'restored' }).secret, call('search'));
    expect([response.status, response.headers['retry-after']]).toEqual([503, '1']);
    expect(response.body).toMatchObject({ code: 'restored' });
    expect(bodies).toEqual([]);
  });

  it('refuses a whole batch when one of its messages is forbidden', async () => {
    expect((await post(reader(), [call('search'), call('create', 2)])).status).toBe(403);
    expect(bodies).toEqual([]);
    expect((await post(writer(), [call('search'), call('create', 2)])).status).toBe(200);
  });

  it('allows handshake and listing for any token, and requires the scopes of "*" for all other methods', async () => {
    const message = (method: string) => ({ jsonrpc: '2.0', id: 1, method });
    for (const method of ['initialize', 'ping', 'tools/list', 'server/discover', 'notifications/initialized'])
      expect([method, (await post(reader(), message(method))).status]).toEqual([method, 200]);
    for (const method of ['resources/read', 'prompts/get', 'tools/callx', 'completion/complete'])
      expect([method, (await post(reader(), message(method))).status]).toEqual([method, 403]);
    expect((await post(reader(), { jsonrpc: '2.0', id: 1, result: {} })).status).toBe(200);
  });

  it('without "*" offers only the tools that it lists', async () => {
    const { secret } = s.authority.issue({ scopes: ['demo:list', 'demo:read', 'demo:write'] });
    expect((await post(secret, call('search'), {}, '/closed/mcp')).status).toBe(200);
    const response = await post(secret, call('create'), {}, '/closed/mcp');
    expect([response.status, response.body.detail]).toEqual([403, 'The route closed offers no tool create.']);
    const lacking = s.authority.issue({ scopes: ['demo:read'] }).secret;
    expect((await post(lacking, call('search'), {}, '/closed/mcp')).status).toBe(403);
  });

  it('never forwards another tool than the one checked', async () => {
    const secret = reader();
    const twice =
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","name":"create","arguments":{}}}';
    expect((await post(secret, twice)).status).toBe(403);
    const reversed = twice.replace('"search","name":"create"', '"create","name":"search"');
    expect((await post(secret, reversed)).status).toBe(200);
    expect(bodies[0]).not.toContain('create');
    for (const misspelt of [
      twice.replace('"name":"create"', '"Name":"create"'),
      twice.replace('"name":"create"', '"NAME":"create"'),
      '{"jsonrpc":"2.0","id":1,"Method":"tools/call","params":{"name":"create"}}',
      '{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call","params":{"name":"create"}}',
      '{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{"name":"create"},"params":{}}',
    ])
      expect([misspelt, (await post(secret, misspelt)).status]).toEqual([misspelt, 400]);
    const escaped = '{"jsonrpc":"2.0","id":1,"method":"tools/c\\u0061ll","params":{"n\\u0061me":"create"}}';
    expect((await post(secret, escaped)).status).toBe(403);
  });

  it('refuses Mcp-Method and Mcp-Name headers that differ from the body', async () => {
    const secret = reader();
    expect((await post(secret, call('search'), { 'mcp-method': 'tools/call', 'mcp-name': 'search' })).status).toBe(200);
    expect((await post(secret, call('search'), { 'mcp-name': '=?base64?c2VhcmNo?=' })).status).toBe(200);
    expect((await post(secret, call('search'), { 'mcp-name': 'create' })).status).toBe(400);
    expect((await post(secret, call('search'), { 'mcp-method': 'ping' })).status).toBe(400);
    expect((await post(writer(), [call('search'), call('search')], { 'mcp-name': 'search' })).status).toBe(400);
  });

  it('forwards numbers with their digits unchanged', async () => {
    const text =
      '{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"search","arguments":{"a":1.0,"b":1e400,"c":-0,"d":12345678901234567890.5}}}';
    expect((await post(reader(), text)).status).toBe(200);
    expect(bodies[0]).toBe(text);
  });

  it.each<[string, string | Buffer | object, Record<string, string>, number]>([
    ['invalid JSON', '{"method"', {}, 400],
    ['a string', '"x"', {}, 400],
    ['an empty batch', '[]', {}, 400],
    ['a batch within a batch', '[[{"method":"ping"}]]', {}, 400],
    ['null', 'null', {}, 400],
    ['a number', '1.0', {}, 400],
    ['no method', {}, {}, 400],
    ['a method that is not a string', { jsonrpc: '2.0', method: ['tools/call'] }, {}, 400],
    [
      'a tool that is not a string',
      { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: ['search'] } },
      {},
      400,
    ],
    ['parameters by position', { jsonrpc: '2.0', id: 1, method: 'tools/call', params: ['search'] }, {}, 400],
    ['a byte order mark', Buffer.from(`\ufeff${JSON.stringify(call('search'))}`), {}, 400],
    ['invalid UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), {}, 400],
    ['UTF-16', Buffer.from(JSON.stringify(call('search')), 'utf16le'), {}, 400],
    ['another media type', call('search'), { 'content-type': 'text/plain' }, 415],
    ['another charset', call('search'), { 'content-type': 'application/json; charset=utf-7' }, 415],
    ['another charset in quotes', call('search'), { 'content-type': 'application/json;charset="utf-16le"' }, 415],
    ['two charsets', call('search'), { 'content-type': 'application/json; charset=utf-8; charset=utf-7' }, 415],
    [
      'another parameter before it',
      call('search'),
      { 'content-type': 'application/json; x="; charset=utf-8"; charset=utf-7' },
      415,
    ],
    ['a content coding', call('search'), { 'content-encoding': 'gzip' }, 415],
    ['more than 1 MiB', `"${'x'.repeat(1_048_576)}"`, {}, 413],
  ])('refuses %s', async (_, body, headers, status) => {
    expect((await post(reader(), body, headers)).status).toBe(status);
    expect(bodies).toEqual([]);
  });

  it('reads the body only for a valid token', async () => {
    const response = await post('nonsense', '{');
    expect(response.status).toBe(401);
  });

  it('forwards GET and DELETE of Streamable HTTP, and no other method', async () => {
    const send = async (method: 'GET' | 'DELETE' | 'PUT') => {
      const response = await request(`${s.gateway.url}/tools/mcp`, {
        method,
        headers: { authorization: `Bearer ${reader()}` },
      });
      await response.body.dump();
      return response;
    };
    expect((await send('GET')).statusCode).toBe(200);
    expect((await send('DELETE')).statusCode).toBe(200);
    const put = await send('PUT');
    expect([put.statusCode, put.headers['allow']]).toEqual([405, 'GET, POST, DELETE']);
  });
});

it('a batch counts as its messages towards the rate limit, and can have at most 100', async () => {
  const { secret } = s.authority.issue({ rateLimit: { limit: 5, windowSeconds: 60 } });
  expect((await post(secret, [call('search'), call('search'), call('search')])).status).toBe(200);
  expect((await post(secret, [call('search'), call('search'), call('search')])).status).toBe(429);
  expect((await post(secret, call('search'))).status).toBe(200);
  const many = Array.from({ length: 101 }, () => call('search'));
  expect((await post(s.authority.issue().secret, many)).status).toBe(400);
});
