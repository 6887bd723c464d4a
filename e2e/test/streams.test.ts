import type { Project } from '@latchkey/contracts';
import { ask, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';
import { type OpenStream, openEvents, openSocket } from '../src/streams.js';

const place = placeOfRun();
const { url } = readyOf(place);
let admin: Person;
let project: Project;
beforeAll(async () => {
  admin = await Person.admin(place);
  project = await admin.project('Streams');
});

const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });
const events = (secret: string) => openEvents(`${url}/demo/projects/${project.id}/events`, { headers: bearer(secret) });
const socket = (secret: string) => openSocket(`${url}/demo/projects/${project.id}/ws`, bearer(secret));
const watch = (secret: string) =>
  openEvents(`${url}/tools/mcp`, {
    method: 'POST',
    headers: { ...bearer(secret), 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/call',
      params: {
        name: 'watch',
        arguments: { project: project.id, seconds: 60, intervalMs: 100 },
        _meta: { progressToken: 'p' },
      },
    }),
  });
const issue = (more: object = {}) =>
  admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read', 'demo:write'], ...more });

const KINDS: [string, (secret: string) => Promise<OpenStream>, string][] = [
  ['server-sent events', events, 'hello'],
  ['a WebSocket', socket, 'hello'],
  ['a long MCP response', watch, 'notifications/progress'],
];

/** Fails unless the stream ends within the time, counted from now. */
async function endsWithin(stream: OpenStream, ms: number) {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the stream still ran ${ms} ms later`)), ms);
  });
  return Promise.race([stream.ended, late]).finally(() => clearTimeout(timer));
}

it('passes events on as they happen, both ways', async () => {
  const { secret } = await issue();
  const stream = await events(secret);
  const ws = await socket(secret);
  await stream.next('hello');
  await ws.next('hello');
  ws.send('through the gateway');
  expect(await ws.next('echo')).toMatchObject({ data: 'through the gateway' });
  await ask(`${url}/demo/projects/${project.id}/documents`, 'POST', { token: secret, json: { title: 'streamed' } });
  expect(await stream.next('change')).toMatchObject({ title: 'streamed' });
  expect(await ws.next('change')).toMatchObject({ change: { title: 'streamed' } });
  stream.close();
  ws.close();
});

describe.each(KINDS)('%s', (_name, open, first) => {
  it('ends when its token is revoked', async () => {
    const token = await issue();
    const stream = await open(token.secret);
    await stream.next(first);
    expect((await admin.revoke(token.id)).effective).toBe(true);
    const { code } = await endsWithin(stream, 1_000);
    if (code !== undefined) expect(code).toBe(4401);
  });

  it('ends when its token is disabled', async () => {
    const token = await issue();
    const stream = await open(token.secret);
    await stream.next(first);
    expect((await admin.call('PATCH', `/v1/tokens/${token.id}`, { json: { disabled: true } })).status).toBe(200);
    await endsWithin(stream, 1_000);
  });

  it('ends when its token ends', async () => {
    const token = await issue({ expiresInSeconds: 2 });
    const stream = await open(token.secret);
    await stream.next(first);
    await stream.ended;
    const late = Date.now() - Date.parse(token.expiresAt!);
    expect(late).toBeGreaterThanOrEqual(-50);
    expect(late).toBeLessThan(1_000);
  });

  it('ends when the token loses the scope it runs under', async () => {
    const token = await issue();
    const stream = await open(token.secret);
    await stream.next(first);
    expect((await admin.call('PATCH', `/v1/tokens/${token.id}`, { json: { scopes: ['tokens:read'] } })).status).toBe(
      200,
    );
    await endsWithin(stream, 1_500);
  });

  it('goes on when another token is revoked, and when its own keeps the scope', async () => {
    const token = await issue();
    const bystander = await issue();
    const stream = await open(token.secret);
    await stream.next(first);
    await admin.revoke(bystander.id);
    expect((await admin.call('PATCH', `/v1/tokens/${token.id}`, { json: { scopes: ['demo:read'] } })).status).toBe(200);
    const over = await Promise.race([
      stream.ended.then(() => true),
      new Promise((resolve) => setTimeout(() => resolve(false), 1_500)),
    ]);
    expect(over).toBe(false);
    stream.close();
  });

  it('is not opened for a token without the scope', async () => {
    const narrow = await admin.issue({ scopes: ['tokens:read'] });
    await expect(open(narrow.secret)).rejects.toThrow(/403/);
    await expect(open('nonsense')).rejects.toThrow(/401/);
  });
});
