/**
 * The launcher of `npm start`, run on the pinned Node by tools/start.mjs once everything is installed and built:
 * `node tools/dist/main.js [repository]`.
 */
import path from 'node:path';
import { ConfigError } from '@latchkey/runtime';
import { firstToken } from './first-token.js';
import { createOutput } from './output.js';
import { readSettings } from './settings.js';
import { Stack, StartError } from './stack.js';

const root = path.resolve(process.argv[2] ?? path.join(import.meta.dirname, '..', '..'));
const terminal = process.stdout.isTTY === true && process.env['CI'] !== 'true';

/** Signals within this time are the same Ctrl-C: the terminal sends it to every process, and npm forwards it too. */
const sameSignalMs = 2_000;

function fail(message: string): never {
  process.stderr.write(`Latchkey cannot start: ${message}\n`);
  process.exit(1);
}

async function main(): Promise<void> {
  const settings = readSettings(root, process.env);
  const output = createOutput((text) => process.stdout.write(text), { terminal, level: settings.logLevel });
  const stack = new Stack({ root, env: process.env, settings, output });

  let signalledAt: number | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (signalledAt === undefined) {
      signalledAt = performance.now();
      output.say(`${signal}: stopping`);
      void stack.stop().then(() => {
        output.say('stopped');
        process.exit(0);
      });
    } else if (performance.now() - signalledAt > sameSignalMs) {
      // all child processes end with this one
      output.say('exiting at once');
      process.exit(1);
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  // The process that started the launcher has exited.
  process.on('disconnect', () => onSignal('SIGHUP'));
  // The reader of the output has exited (`npm start | head`).
  process.stdout.on('error', () => onSignal('SIGHUP'));

  output.say('starting');
  await stack.start();
  await greet(stack, settings.adminEmail, settings.adminPassword !== null, output.say);
  output.say(`ready ${stack.addresses.publicUrl}`);
}

/** Prints URL, first sign-in and a command to paste; secrets at the first start only. One write, so that no log line
 * interrupts it. */
async function greet(
  stack: Stack,
  email: string,
  hasPasswordSetting: boolean,
  say: (line: string) => void,
): Promise<void> {
  const { addresses, secrets, isFirstStart, secretsDir } = stack;
  const lines = [`Latchkey      ${addresses.publicUrl}`, `Sign in       ${email}`];
  if (isFirstStart && !hasPasswordSetting) lines.push(`Password      ${secrets.adminPassword}   (shown only once)`);
  try {
    const admin = { email, password: secrets.adminPassword };
    const first = await firstToken(secretsDir, addresses.url, addresses.publicUrl, admin);
    if (first?.secret) lines.push(`First token   ${first.secret}   (shown only once)`);
    lines.push(`Try it        ${first?.curl ?? `curl ${addresses.url}/v1/openapi.json`}`);
  } catch (error) {
    lines.push(`Issuing the first token failed: ${(error as Error).message}`);
  }
  const board = `http://127.0.0.1:${addresses.ports.OPS_PORT + 2}/queues`;
  lines.push(`Queues        ${board}   (password in ${path.join(secretsDir, 'board-password')})`);
  say(['', ...lines.map((line) => `  ${line}`), ''].join('\n'));
  stack.recordFirstStart();
}

try {
  await main();
} catch (error) {
  if (error instanceof StartError || error instanceof ConfigError) fail(error.message);
  throw error;
}
