import { lstat } from 'node:fs/promises';
import { DEFAULT_PREFIX, isPrefix } from '@latchkey/token-format';
import { type Command, InvalidArgumentError } from 'commander';
import type { Client } from '../index.js';
import type { Context } from './context.js';
import { CommandError } from './exit.js';
import { printJson, say } from './output.js';
import { type Finding, scanFiles, scanHistory, scanStream } from './scan.js';

interface ScanOptions {
  history?: boolean;
  prefix: string;
  revoke?: boolean;
}

const BATCH_SIZE = 1_000;

/** `latchkey scan`: works offline; only `--revoke` calls the server, without authentication. */
export function scanCommand(program: Command, context: Context, anonymousClient: () => Promise<Client>): void {
  const { output, exit } = context;
  program
    .command('scan <path>')
    .description('find Latchkey tokens in files, by pattern and checksum; "-" reads standard input')
    .option('--history', 'search all objects of the git repository at this path, not its files')
    .option(
      '--prefix <prefix>',
      'prefix of tokens (LATCHKEY_PREFIX)',
      prefix,
      context.env['LATCHKEY_PREFIX'] || DEFAULT_PREFIX,
    )
    .option('--revoke', 'revoke what is found, as exposed')
    .action(async (path: string, options: ScanOptions) => {
      const found: Finding[] = [];
      let unread = 0;
      for await (const finding of findings(path, options, (place, reason) => {
        unread++;
        say(output, `cannot read ${place}: ${reason}`);
      })) {
        found.push(finding);
        if (!output.json) output.out.write(`${finding.place}:${finding.line}: ${finding.start}…\n`);
      }
      const secrets = [...new Set(found.map((finding) => finding.secret))];
      if (output.json)
        printJson(
          output,
          found.map(({ place, line, start }) => ({ place, line, start })),
        );
      if (options.revoke && secrets.length) await revoke(secrets);
      say(output, `${found.length} found, ${secrets.length} different${unread ? `; ${unread} could not be read` : ''}`);
      if (found.length) exit('found');
      else if (unread) exit('failed');
    });

  async function* findings(path: string, options: ScanOptions, unread: (place: string, reason: string) => void) {
    if (path === '-') return yield* scanStream(context.stdin, '(standard input)', options.prefix);
    await lstat(path).catch((error: NodeJS.ErrnoException) => {
      throw new CommandError('usage', `cannot read ${path}: ${error.code}`);
    });
    yield* options.history ? scanHistory(path, options.prefix) : scanFiles(path, options.prefix, unread);
  }

  async function revoke(secrets: string[]): Promise<void> {
    const client = await anonymousClient();
    for (let at = 0; at < secrets.length; at += BATCH_SIZE)
      await client.revokeExposed({ body: { tokens: secrets.slice(at, at + BATCH_SIZE) } });
    say(output, `${secrets.length} reported; those that were valid are revoked`);
  }
}

function prefix(text: string): string {
  if (!isPrefix(text))
    throw new InvalidArgumentError('1 to 16 lower-case letters and digits, beginning with a letter.');
  return text;
}
