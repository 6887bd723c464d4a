import { Command } from 'commander';
import { positive } from './arguments.js';
import { auditCommands } from './audit.js';
import { completion, SHELLS, type Shell } from './completion.js';
import type { Context } from './context.js';
import { CommandError, EXIT } from './exit.js';
import { importCommand } from './import.js';
import { say, show } from './output.js';
import { receiptCommands } from './receipt.js';
import { scanCommand } from './scan-command.js';
import { clientFor, type GlobalOptions, readSecret, removeStored, signedIn, urlOf, writeStored } from './settings.js';
import { tokenCommands, tokenFields } from './tokens.js';

/** The whole `latchkey` command. Nothing is read or written before an action runs. */
export function buildProgram(context: Context): Command {
  const program = new Command('latchkey')
    .description('Issue, list, rotate and revoke API tokens; find leaked ones; verify the audit log.')
    .version('0.2.0')
    .option('--url <address>', 'the server (LATCHKEY_URL, the stored one, http://127.0.0.1:8080)')
    .option('--json', 'print results as JSON')
    .option('--timeout <seconds>', 'timeout of a call', positive)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => context.output.out.write(text),
      writeErr: (text) => context.output.err.write(text),
    })
    .addHelpText(
      'after',
      `
The token comes from LATCHKEY_TOKEN, or from the file that \`latchkey login\` writes; never from the command line.

Exit codes:
${Object.values(EXIT)
  .map(({ code, meaning }) => `  ${String(code).padStart(2)}  ${meaning}`)
  .join('\n')}`,
    )
    .hook('preAction', () => {
      context.output.json = globals().json === true;
    });
  const globals = () => program.opts<GlobalOptions>();
  const client = () => signedIn(context, globals());

  program
    .command('login')
    .description('store a token for later commands; it is read from standard input or a prompt')
    .option('--no-check', 'store it without checking that the server accepts it')
    .action(async ({ check }: { check: boolean }) => {
      const url = await urlOf(context, globals());
      const token = await readSecret(context, `Token for ${url}: `, context.output.err);
      if (!token) throw new CommandError('usage', 'there is no token on standard input');
      const client = clientFor(url, globals(), token, context.env);
      const name = check ? (await client.getSelf()).name : undefined;
      const file = await writeStored(context.env, { url, token });
      say(context.output, `${name ? `The token "${name}"` : 'The token'} is stored in ${file}`);
    });

  program
    .command('logout')
    .description('delete the stored token; it stays valid until it is revoked')
    .action(() => removeStored(context.env));

  program
    .command('whoami')
    .description('the token that commands use')
    .action(async () => {
      const token = await (await client()).getSelf();
      show(context.output, token, [['server', await urlOf(context, globals())], ...tokenFields(token)]);
    });

  tokenCommands(program, context, client);
  auditCommands(program, context, client);
  receiptCommands(program, context, client);
  importCommand(program, context, client);
  scanCommand(program, context, async () => clientFor(await urlOf(context, globals()), globals()));

  program
    .command('completion')
    .description('print a completion script for the shell to source')
    .addArgument(program.createArgument('<shell>', 'bash, zsh or fish').choices(SHELLS))
    .action((shell: Shell) => {
      context.output.out.write(completion(program, shell));
    });

  for (const command of allOf(program)) command.exitOverride().showHelpAfterError('(see --help)');
  return program;
}

const allOf = (command: Command): Command[] => [command, ...command.commands.flatMap(allOf)];
