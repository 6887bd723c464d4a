import { parse } from '@latchkey/token-format';
import { CommanderError } from 'commander';
import type { Context } from './context.js';
import { CommandError, EXIT, type ExitName, explain } from './exit.js';
import { buildProgram } from './program.js';

/** A secret on the command line is seen by every user of the machine and kept in shell histories. */
function refuseSecrets(args: readonly string[]): void {
  for (const arg of args) {
    for (const [word, prefix = ''] of arg.matchAll(/([a-z][a-z0-9]{0,15})_(?:pat|prj)_[0-9A-Za-z]{36}/g)) {
      if (!parse(word, prefix).ok) continue;
      throw new CommandError(
        'usage',
        `${word.slice(0, prefix.length + 9)}… on the command line is a token's secret, which others on this machine can see there: give it on standard input or in LATCHKEY_TOKEN, and revoke it`,
      );
    }
  }
}

let exit: ExitName = 'ok';
const context: Context = {
  env: process.env,
  stdin: process.stdin,
  output: { out: process.stdout, err: process.stderr, json: false },
  exit: (name) => {
    exit = name;
  },
};

// The reader of a pipe may leave early (`latchkey tokens list | head`).
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? 0 : EXIT.failed.code),
);

try {
  const args = process.argv.slice(2);
  refuseSecrets(args);
  await buildProgram(context).parseAsync(args, { from: 'user' });
} catch (error) {
  if (error instanceof CommanderError) exit = error.exitCode === 0 ? 'ok' : 'usage';
  else {
    const told = explain(error);
    exit = told.exit;
    if (context.output.json && told.problem) process.stderr.write(`${JSON.stringify(told.problem)}\n`);
    else process.stderr.write(`latchkey: ${told.lines.join('\n')}\n`);
  }
}
process.exitCode = EXIT[exit].code;
