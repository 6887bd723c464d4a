import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type FaultyLink, faultyLink, waitFor } from '../src/index.js';

let echo: Server;
let link: FaultyLink;
let sockets: Socket[];

beforeEach(async () => {
  sockets = [];
  echo = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket.on('error', () => socket.destroy()));
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
  link = await faultyLink({ port: (echo.address() as { port: number }).port });
});

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await link.close();
  await new Promise((resolve) => echo.close(resolve));
});

/** A connection through the link, with what came back so far and how it ended. */
async function connect() {
  const socket = createConnection({ port: link.port, host: link.host });
  sockets.push(socket);
  const seen = { text: '', ended: false, error: '' };
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    seen.text += chunk;
  });
  socket.on('end', () => {
    seen.ended = true;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    seen.error = error.code ?? '';
  });
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return { socket, seen };
}

test('passes everything on, ends included', async () => {
  const { socket, seen } = await connect();
  const text = 'x'.repeat(3_000_000);
  socket.end(text);
  await waitFor(() => seen.ended, { what: 'the end coming back' });
  expect(seen.text.length).toBe(text.length);
  await waitFor(() => link.open === 0, { what: 'the link being empty' });
});

test('a cut resets connections and refuses new ones until it is healed', async () => {
  const { seen } = await connect();
  link.cut();
  await waitFor(() => seen.error === 'ECONNRESET', { what: 'the reset' });
  const refused = createConnection({ port: link.port, host: link.host });
  const failed = new Promise((resolve) => refused.once('error', (error: NodeJS.ErrnoException) => resolve(error.code)));
  expect(await failed).toBe('ECONNRESET');
  link.heal();
  const after = await connect();
  after.socket.write('hello');
  await waitFor(() => after.seen.text === 'hello');
});

test('a stall keeps connections open and everything in order for later', async () => {
  const { socket, seen } = await connect();
  link.stall();
  socket.write('one ');
  socket.write('two ');
  const free = await connect();
  expect(free.seen.error).toBe('');
  expect(seen.text).toBe('');
  link.heal();
  socket.write('three');
  await waitFor(() => seen.text === 'one two three', { what: 'everything coming in order' });
});

test('a stall of one direction lets the other through', async () => {
  const { socket, seen } = await connect();
  socket.write('a');
  await waitFor(() => seen.text === 'a');
  const atTarget = new Promise<string>((resolve) => {
    for (const each of sockets) each.once('data', (chunk) => resolve(String(chunk)));
  });
  link.stall('fromTarget');
  socket.write('b');
  expect(await atTarget).toBe('b');
  expect(seen.text).toBe('a');
});

test('a delay delays each direction for that long, in order', async () => {
  const { socket, seen } = await connect();
  link.delay(100);
  const sentAt = performance.now();
  socket.write('one ');
  socket.write('two');
  await waitFor(() => seen.text === 'one two');
  expect(performance.now() - sentAt).toBeGreaterThanOrEqual(200);
});

test('an unreachable target looks like a reset', async () => {
  const nowhere = await faultyLink({ port: 1 });
  const socket = createConnection({ port: nowhere.port, host: nowhere.host });
  const code = await new Promise((resolve) =>
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code)),
  );
  expect(code).toBe('ECONNRESET');
  await nowhere.close();
});

test('leads new connections to several targets in turn, and leaves open ones where they are', async () => {
  const second = createServer((socket) => {
    sockets.push(socket.on('error', () => socket.destroy()));
    socket.end('second');
  });
  await new Promise<void>((resolve) => second.listen(0, '127.0.0.1', resolve));
  const before = await connect();
  link.lead(
    { port: (second.address() as { port: number }).port },
    `tcp://127.0.0.1:${(echo.address() as { port: number }).port}`,
  );
  const [one, two] = [await connect(), await connect()];
  for (const { socket } of [before, one, two]) socket.write('echo');
  await waitFor(() => [before, one, two].every(({ seen }) => seen.text !== ''));
  expect([before.seen.text, one.seen.text, two.seen.text].sort()).toEqual(['echo', 'echo', 'second']);
  expect(before.seen.text).toBe('echo');
  second.close();
});

test('returns addresses with itself in place of the target', () => {
  expect(link.url('redis://:secret@127.0.0.1:6379')).toBe(`redis://:secret@127.0.0.1:${link.port}`);
  expect(link.url('postgres://a:b@127.0.0.1:5432/db')).toBe(`postgres://a:b@127.0.0.1:${link.port}/db`);
});
