import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { type Checkpoint, checkpointSchema, proveExport } from '@latchkey/contracts';
import type { Command } from 'commander';
import type { Body, Client } from '../index.js';
import { positive } from './arguments.js';
import type { Context } from './context.js';
import { CommandError } from './exit.js';
import { gather, opened, publicKeyIn, unreadable } from './files.js';
import { list, say, show } from './output.js';

type AuditEvent = Body<'listAudit'>['items'][number];
interface Filters {
  actor?: string;
  token?: string;
  project?: string;
  action?: string;
  from?: string;
  to?: string;
}

/** `latchkey audit …` */
export function auditCommands(program: Command, { output, exit, stdin }: Context, client: () => Promise<Client>): void {
  const audit = program.command('audit').description('who changed what');

  const filtered = (command: Command) =>
    command
      .option('--actor <id>', 'the person or token that did it')
      .option('--token <id>', 'about this token')
      .option('--project <id>', 'about this project')
      .option('--action <action>', 'such as token.revoked')
      .option('--from <time>', 'RFC 3339')
      .option('--to <time>', 'RFC 3339');
  const queryOf = ({ token, project, ...rest }: Filters) =>
    ({
      ...(token ? { tokenId: token } : {}),
      ...(project ? { projectId: project } : {}),
      ...(rest as { action?: AuditEvent['action'] }),
    }) as const;

  filtered(audit.command('list', { isDefault: true }))
    .description('events, newest first')
    .option('--limit <count>', 'at most this many', positive, 25)
    .action(async ({ limit, ...filters }: Filters & { limit: number }) => {
      const found: AuditEvent[] = [];
      const query = { ...queryOf(filters), limit: Math.min(100, limit) };
      for await (const event of (await client()).each('listAudit', { query })) {
        if (found.push(event) === limit) break;
      }
      list(output, found, [
        ['AT', (e) => e.at],
        ['ACTION', (e) => e.action],
        ['ACTOR', (e) => e.actor.name || e.actor.type],
        ['SUBJECT', (e) => e.subject?.name],
        ['ADDRESS', (e) => e.ip],
        ['REQUEST', (e) => e.requestId],
      ]);
    });

  filtered(audit.command('export'))
    .description('events as a stream to standard output, oldest first')
    .option('--format <format>', 'ndjson or csv', 'ndjson')
    .action(async ({ format, ...filters }: Filters & { format: 'ndjson' | 'csv' }) => {
      const response = await (await client()).open('exportAudit', { query: { ...queryOf(filters), format } });
      if (response.body) await pipeline(response.body, output.out, { end: false });
    });

  audit
    .command('state')
    .description("check the server's hash chain on the server")
    .action(async () => {
      const state = await (await client()).verifyAudit();
      show(output, state, [
        ['unbroken', state.ok],
        ['events sealed', state.events],
        ['checkpoints', state.checkpoints],
        ['first broken', state.firstBroken && `${state.firstBroken.seq ?? '?'}: ${state.firstBroken.reason}`],
      ]);
      if (!state.ok) exit('broken');
    });

  audit
    .command('verify [file]')
    .description('prove an NDJSON export from the file alone, without any server; "-" or no file reads standard input')
    .option('--key <file>', 'public key in PEM that must have signed it; can be repeated', gather, [])
    .option('--checkpoints <file>', 'checkpoints stored elsewhere, a line of JSON each: the export must reach the last')
    .action(async (file: string | undefined, options: { key: string[]; checkpoints?: string }) => {
      const keys = await Promise.all(options.key.map(publicKeyIn));
      const checkpoints = options.checkpoints ? await checkpointsIn(options.checkpoints) : [];
      const input = file === undefined || file === '-' ? stdin : (await opened(file)).createReadStream();
      const verdict = await proveExport(
        createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY }),
        keys,
        checkpoints,
      );
      if (verdict.ok && verdict.events === 0)
        throw new CommandError(
          'usage',
          'there is no event in it, so nothing is proven: give the output of `audit export`',
        );
      show(output, verdict, [
        ['unbroken', verdict.ok],
        ['events proven', verdict.events],
        ['signed through', verdict.signedThrough],
        ['checkpoints', verdict.checkpoints],
        ['signed by', verdict.signers.join(', ')],
        ['first broken', verdict.firstBroken && `${verdict.firstBroken.seq ?? '?'}: ${verdict.firstBroken.reason}`],
      ]);
      if (verdict.ok && keys.length === 0 && verdict.signers.length > 0)
        say(output, 'No --key was given: compare "signed by" with the name that the token-service logs at its start.');
      if (verdict.ok && verdict.signedThrough < verdict.events)
        say(output, `What follows ${verdict.signedThrough} is chained, but no checkpoint in the export signs it.`);
      if (!verdict.ok) exit('broken');
    });

  program
    .command('denial <requestId>')
    .description('why a request was denied')
    .action(async (requestId: string) => {
      const denial = await (await client()).getDenial({ params: { requestId } });
      show(output, denial, Object.entries(denial));
    });
}

/** Checkpoints, or lines of the token-service's log that contain one. */
async function checkpointsIn(file: string): Promise<Checkpoint[]> {
  const text = await readFile(file, 'utf8').catch(unreadable(file));
  const found = text.split('\n').flatMap((line) => {
    try {
      const value: unknown = JSON.parse(line);
      const logged = (value as { checkpoint?: unknown } | null)?.checkpoint;
      const inLog = typeof logged === 'string' ? JSON.parse(logged) : logged;
      return checkpointSchema.safeParse(inLog ?? value).data ?? [];
    } catch {
      return []; // another line of the log
    }
  });
  if (found.length === 0) throw new CommandError('usage', `${file} contains no checkpoint`);
  return found;
}
