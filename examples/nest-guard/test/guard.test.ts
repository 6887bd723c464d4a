import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { createServer } from 'node:net';
import path from 'node:path';

/*
 * The real service as a process, with nothing listening at its Latchkey address: what it returns before and without Latchkey.
 * Tokens allowed and denied by a real token-service are tried end to end, in e2e.
 */
const MAIN = path.join(import.meta.dirname, '..', 'dist', 'main.js');
const PROJECT = '01890000-0000-7000-8000-000000000001';

function run(env: Record<string, string>): ChildProcess {
  return spawn(process.execPath, [MAIN], { env: { PATH: process.env['PATH'], ...env } });
}

/** A port that refuses connections: taken for a moment, then let go. */
async function deadPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

let child: ChildProcess;
let url: string;
let output = '';
beforeAll(async () => {
  child = run({ PORT: '0', LATCHKEY_RPC: `127.0.0.1:${await deadPort()}`, LATCHKEY_TOKEN: 'the-service-own-token' });
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on('data', (piece: Buffer) => {
      output += piece.toString();
    });
  }
  while (!output.includes('listening')) await once(child.stdout!, 'data');
  url = /listening (\S+)/.exec(output)![1]!;
});
afterAll(async () => {
  child.kill('SIGTERM');
  const [code, signal] = await once(child, 'close');
  expect({ code, signal }).toEqual({ code: null, signal: 'SIGTERM' });
});

async function get(pathname: string, init: RequestInit = {}) {
  const response = await fetch(url + pathname, init);
  return {
    status: response.status,
    authenticate: response.headers.get('www-authenticate'),
    type: response.headers.get('content-type'),
    retryAfter: response.headers.get('retry-after'),
    body: JSON.parse(await response.text()),
  };
}
const bearer = { authorization: 'Bearer lk_pat_never-to-be-seen' };

it('opens a public route to everyone', async () => {
  expect(await get('/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } });
});

it('returns 401 with a plain challenge when there is no token', async () => {
  for (const headers of [{}, { authorization: 'Basic dXNlcjpwYXNz' }]) {
    expect(await get('/whoami', { headers })).toMatchObject({
      status: 401,
      authenticate: 'Bearer realm="api"',
      type: expect.stringContaining('application/problem+json'),
      body: { code: 'unauthenticated' },
    });
  }
});

it('returns 400 invalid_request for a malformed header, a token elsewhere, or two of them', async () => {
  const invalid = {
    status: 400,
    authenticate: 'Bearer realm="api", error="invalid_request"',
    body: { code: 'invalid_request' },
  };
  expect(await get('/whoami', { headers: { authorization: 'Bearer' } })).toMatchObject(invalid);
  expect(await get('/whoami', { headers: { authorization: 'Bearer a b' } })).toMatchObject(invalid);
  expect(await get('/whoami?access_token=x')).toMatchObject(invalid);
  expect(await get('/whoami?access_token=x', { headers: bearer })).toMatchObject(invalid);
  const two = await new Promise<number | undefined>((resolve, reject) => {
    httpRequest(
      `${url}/whoami`,
      { headers: ['Authorization', 'Bearer a', 'Authorization', 'Bearer b'] },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    )
      .on('error', reject)
      .end();
  });
  expect(two).toBe(400);
});

it('returns 400 for a project that is not a UUID, for every caller', async () => {
  expect(await get('/projects/nope/notes', { headers: bearer })).toMatchObject({
    status: 400,
    body: { code: 'invalid_request' },
  });
});

it('returns 503 and never 401 while Latchkey is unavailable, and never logs the secret', async () => {
  expect(await get(`/projects/${PROJECT}/notes`, { headers: bearer })).toMatchObject({
    status: 503,
    authenticate: null,
    retryAfter: '1',
    body: { code: 'unavailable' },
  });
  expect(output).toContain('Latchkey did not respond');
  expect(output).not.toContain('never-to-be-seen');
  expect(output).not.toContain('the-service-own-token');
});

it.each([
  ['LATCHKEY_TOKEN', { PORT: '0' }],
  ['PORT', { PORT: 'x', LATCHKEY_TOKEN: 't' }],
])('refuses to start without a right %s, and names it', async (name, env) => {
  const other = run(env);
  let output = '';
  other.stderr!.on('data', (piece: Buffer) => {
    output += piece.toString();
  });
  const [code] = await once(other, 'close');
  expect(code).toBe(1);
  expect(output).toContain(name);
});
