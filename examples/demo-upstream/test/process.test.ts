import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

const MAIN = path.join(import.meta.dirname, '..', 'dist', 'main.js');

function run(env: Record<string, string>): {
  child: ChildProcess;
  output: () => string;
  until: (text: string) => Promise<void>;
} {
  const child = spawn(process.execPath, [MAIN], { env: { PATH: process.env['PATH'], ...env } });
  let output = '';
  const collect = (piece: Buffer) => {
    output += piece.toString();
  };
  child.stdout!.on('data', collect);
  child.stderr!.on('data', collect);
  const until = async (text: string) => {
    while (!output.includes(text))
      await Promise.race([
        once(child.stdout!, 'data'),
        once(child, 'close').then(() => Promise.reject(new Error(output))),
      ]);
  };
  return { child, output: () => output, until };
}

it.each([
  ['PORT', { PORT: 'eighty' }],
  ['PORT', { PORT: '70000' }],
  ['LOG_LEVEL', { LOG_LEVEL: 'loud' }],
  ['PUBLIC_URL', { PUBLIC_URL: 'nowhere' }],
])('refuses to start with a wrong %s, and names it', async (name, env) => {
  const { child, output } = run(env);
  const [code] = await once(child, 'close');
  expect(code).toBe(1);
  expect(output()).toContain(name);
});

it('listens on loopback at the port given, logs JSON lines, and ends with 0 on SIGTERM though a stream is open', async () => {
  const { child, output, until } = run({ PORT: '0', LOG_LEVEL: 'debug' });
  await until('listening');
  const { url } = JSON.parse(output().split('\n')[0]!);
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  const stream = await fetch(`${url}/events`);
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
  child.kill('SIGTERM');
  const [code] = await once(child, 'close');
  expect(code).toBe(0);
  await stream.body!.cancel();
  for (const line of output().trim().split('\n')) expect(JSON.parse(line)).toHaveProperty('level');
  expect(output()).toContain('"msg":"stopped"');
});

it('exits with an error when its port is taken', async () => {
  const first = run({ PORT: '0' });
  await first.until('listening');
  const { port } = new URL(JSON.parse(first.output().split('\n')[0]!).url);
  const second = run({ PORT: port });
  const [code] = await once(second.child, 'close');
  expect(code).toBe(1);
  expect(second.output()).toContain('PORT is taken');
  first.child.kill('SIGTERM');
  await once(first.child, 'close');
});
