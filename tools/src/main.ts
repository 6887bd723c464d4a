/**
 * The launcher behind `npm start`, run under the pinned Node by tools/start.mjs once everything is installed and built:
 * `node tools/dist/main.js [repository]`.
 */
import path from 'node:path';
import { ConfigError } from '@latchkey/runtime';
import { firstToken } from './first-token.js';
import { createOutput } from './output.js';
import { readSettings } from './settings.js';
import { CannotStart, Stack } from './stack.js';

const root = path.resolve(process.argv[2] ?? path.join(import.meta.dirname, '..', '..'));
const terminal = process.stdout.isTTY === true && process.env['CI'] !== 'true';

/** Repeats within this time are one and the same Ctrl-C: the terminal tells every process, and npm passes it on too. */
const sameSignalMs = 2_000;

function fail(message: string): never {
  process.stderr.write(`Latchkey cannot start: ${message}\n`);
  process.exit(1);
}

async function main(): Promise<void> {
  const settings = readSettings(root, process.env);
  const output = createOutput((text) => process.stdout.write(text), { terminal, level: settings.logLevel });
  const stack = new Stack({ root, env: process.env, settings, output });

  let askedAt: number | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (askedAt === undefined) {
      askedAt = performance.now();
      output.say(`${signal}: stopping`);
      void stack.stop().then(() => {
        output.say('stopped');
        process.exit(0);
      });
    } else if (performance.now() - askedAt > sameSignalMs) {
      // What was started ends with this process.
      output.say('leaving at once');
      process.exit(1);
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  // Whoever started the launcher has gone.
  process.on('disconnect', () => onSignal('SIGHUP'));
  // Whoever read the output has gone (`npm start | head`).
  process.stdout.on('error', () => onSignal('SIGHUP'));

  output.say('starting');
  await stack.start();
  await greet(stack, settings.adminEmail, settings.adminPassword !== null, output.say);
  output.say(`ready ${stack.places.publicUrl}`);
}

/** Address, first sign-in and a line to paste; secrets at the first start only. One text, so that no log line parts it. */
async function greet(
  stack: Stack,
  email: string,
  passwordWasGiven: boolean,
  say: (line: string) => void,
): Promise<void> {
  const { places, secrets, isFirstStart, secretsDir } = stack;
  const lines = [`Latchkey      ${places.publicUrl}`, `Sign in       ${email}`];
  if (isFirstStart && !passwordWasGiven) lines.push(`Password      ${secrets.adminPassword}   (shown this once)`);
  try {
    const admin = { email, password: secrets.adminPassword };
    const first = await firstToken(secretsDir, places.url, places.publicUrl, admin);
    if (first?.secret) lines.push(`First token   ${first.secret}   (shown this once)`);
    lines.push(`Try it        ${first?.curl ?? `curl ${places.url}/v1/openapi.json`}`);
  } catch (error) {
    lines.push(`No first token could be issued: ${(error as Error).message}`);
  }
  const board = `http://127.0.0.1:${places.ports.OPS_PORT + 2}/queues`;
  lines.push(`Queues        ${board}   (password in ${path.join(secretsDir, 'board-password')})`);
  say(['', ...lines.map((line) => `  ${line}`), ''].join('\n'));
  stack.settle();
}

try {
  await main();
} catch (error) {
  if (error instanceof CannotStart || error instanceof ConfigError) fail(error.message);
  throw error;
}
