import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import type { Body, Client } from '../index.js';
import { positive } from './arguments.js';
import { list, show } from './output.js';
import type { Context } from './program.js';

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
export function auditCommands(program: Command, { output, exit }: Context, client: () => Promise<Client>): void {
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
    .description('have the server check its own hash chain')
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

  program
    .command('denial <requestId>')
    .description('why a request was refused')
    .action(async (requestId: string) => {
      const denial = await (await client()).getDenial({ params: { requestId } });
      show(output, denial, Object.entries(denial));
    });
}
