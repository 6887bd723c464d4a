import { once } from 'node:events';
import { WebSocket } from 'ws';
import type { DemoUpstream } from '../src/index.js';
import { identity, nextEvent, OTHER, PROJECT, readEvents, start } from './start.js';

let demo: DemoUpstream;
beforeAll(async () => {
  demo = await start();
});
afterAll(() => demo.close());

async function write(project: string, title: string): Promise<void> {
  const response = await fetch(`${demo.url}/projects/${project}/documents`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ title }),
  });
  expect(response.status).toBe(201);
  await response.arrayBuffer();
}

async function listen(path: string, headers: Record<string, string> = {}) {
  const stop = new AbortController();
  const response = await fetch(demo.url + path, { headers, signal: stop.signal });
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  return { events: readEvents(response.body!), stop: () => stop.abort() };
}

describe('server-sent events', () => {
  it('greet with the caller, send changes of that project alone, and tick', async () => {
    const { events, stop } = await listen(`/projects/${PROJECT}/events`, identity());
    expect((await nextEvent(events, 'hello')).data).toMatchObject({ project: PROJECT, caller: { requestId: 'req-1' } });
    await write(OTHER, 'elsewhere');
    await write(PROJECT, 'here');
    expect((await nextEvent(events, 'change')).data).toMatchObject({ type: 'document.created', title: 'here' });
    await nextEvent(events, 'tick');
    stop();
  });

  it('send all changes to a caller without a project, and to a caller with one only its own', async () => {
    const all = await listen('/events');
    const one = await listen('/events', identity(OTHER));
    await nextEvent(all.events, 'hello');
    await nextEvent(one.events, 'hello');
    await write(PROJECT, 'first');
    await write(OTHER, 'second');
    expect((await nextEvent(all.events, 'change')).data['title']).toBe('first');
    expect((await nextEvent(one.events, 'change')).data['title']).toBe('second');
    all.stop();
    one.stop();
  });

  it('send what was missed since Last-Event-ID, once and in order', async () => {
    const first = await listen(`/projects/${PROJECT}/events`);
    await nextEvent(first.events, 'hello');
    await write(PROJECT, 'seen');
    const { id } = await nextEvent(first.events, 'change');
    first.stop();
    await write(PROJECT, 'missed 1');
    await write(PROJECT, 'missed 2');
    const again = await listen(`/projects/${PROJECT}/events`, { 'last-event-id': id! });
    expect((await nextEvent(again.events, 'change')).data['title']).toBe('missed 1');
    expect((await nextEvent(again.events, 'change')).data['title']).toBe('missed 2');
    await write(PROJECT, 'new');
    expect((await nextEvent(again.events, 'change')).data['title']).toBe('new');
    again.stop();
  });

  it('send reset for an unknown Last-Event-ID, and refuse one that is too long', async () => {
    for (const lastEventId of ['0', 'otherboot-1', 'x']) {
      const { events, stop } = await listen('/events', { 'last-event-id': lastEventId });
      await nextEvent(events, 'reset');
      stop();
    }
    expect((await fetch(`${demo.url}/events`, { headers: { 'last-event-id': 'x'.repeat(65) } })).status).toBe(400);
  });
});

describe('WebSocket', () => {
  async function open(path: string, headers: Record<string, string> = {}) {
    const ws = new WebSocket(demo.url.replace('http', 'ws') + path, { headers });
    const waiting: { data: Buffer; binary: boolean }[] = [];
    let wake: (() => void) | undefined;
    ws.on('message', (data: Buffer, binary) => {
      waiting.push({ data, binary });
      wake?.();
    });
    const next = async () => {
      while (waiting.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return waiting.shift()!;
    };
    const nextJson = async () => JSON.parse((await next()).data.toString());
    await once(ws, 'open');
    return { ws, next, nextJson };
  }

  it('greets with the caller, echoes text and bytes, and sends changes', async () => {
    const { ws, next, nextJson } = await open(`/projects/${PROJECT}/ws`, identity());
    expect(await nextJson()).toMatchObject({
      type: 'hello',
      project: PROJECT,
      caller: { scopes: ['demo:read', 'demo:write'] },
    });
    ws.send('grüß');
    expect(await nextJson()).toEqual({ type: 'echo', data: 'grüß' });
    ws.send(Buffer.from([0, 255, 7]));
    expect(await next()).toEqual({ data: Buffer.from([0, 255, 7]), binary: true });
    await write(OTHER, 'elsewhere');
    await write(PROJECT, 'here');
    expect(await nextJson()).toMatchObject({ type: 'change', change: { title: 'here' } });
    ws.close();
  });

  it('closes with 1009 when a message is too long', async () => {
    const { ws } = await open('/ws');
    ws.send('x'.repeat(64 * 1024 + 1));
    const [code] = await once(ws, 'close');
    expect(code).toBe(1009);
  });

  it('refuses other paths and projects with a plain status, and a plain request with 426', async () => {
    const refused = async (path: string, headers = {}) => {
      const ws = new WebSocket(demo.url.replace('http', 'ws') + path, { headers });
      const [error] = await once(ws, 'error');
      return (error as Error).message;
    };
    expect(await refused('/nowhere')).toContain('404');
    expect(await refused('/projects/x/ws')).toContain('404');
    expect(await refused(`/projects/${OTHER}/ws`, identity(PROJECT))).toContain('404');
    expect((await fetch(`${demo.url}/ws`)).status).toBe(426);
  });
});

it('ends streams and sockets in order when it stops', async () => {
  const own = await start();
  const response = await fetch(`${own.url}/events`);
  const events = readEvents(response.body!);
  await nextEvent(events, 'hello');
  const ws = new WebSocket(`${own.url.replace('http', 'ws')}/ws`);
  await once(ws, 'open');
  const wsClosed = once(ws, 'close');
  await own.close();
  expect((await wsClosed)[0]).toBe(1001);
  for await (const { event } of events) expect(event).toBe('tick');
  await expect(fetch(`${own.url}/healthz`)).rejects.toThrow();
});
