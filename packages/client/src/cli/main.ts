import { parse } from '@latchkey/token-format';
import { CommanderError } from 'commander';
import type { Context } from './context.js';
import { CommandError, EXIT, type ExitName, explain } from './exit.js';
import { buildProgram } from './program.js';

/** A secret on the command line is visible to every user of the machine and stored in shell histories. */
function rejectSecrets(args: readonly string[]): void {
  for (const arg of args) {
    for (const [word, prefix = ''] of arg.matchAll(/([a-z][a-z0-9]{0,15})_(?:pat|prj)_[0-9A-Za-z]{36}/g)) {
      if (!parse(word, prefix).ok) continue;
      throw new CommandError(
        'usage',
        `${word.slice(0, prefix.length + 9)}… on the command line is a token's secret, visible to other users of this machine: revoke it, and give secrets on standard input or in LATCHKEY_TOKEN`,
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

// The reader of a pipe can exit early (`latchkey tokens list | head`).
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? 0 : EXIT.failed.code),
);

try {
  const args = process.argv.slice(2);
  rejectSecrets(args);
  await buildProgram(context).parseAsync(args, { from: 'user' });
} catch (error) {
  if (error instanceof CommanderError) exit = error.exitCode === 0 ? 'ok' : 'usage';
  else {
    const failure = explain(error);
    exit = failure.exit;
    if (context.output.json && failure.problem) process.stderr.write(`${JSON.stringify(failure.problem)}\n`);
    else process.stderr.write(`latchkey: ${failure.lines.join('\n')}\n`);
  }
}
process.exitCode = EXIT[exit].code;
