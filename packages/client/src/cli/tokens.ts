import type { Command } from 'commander';
import type { Body, Client, Effect, Input, IssuedToken, RevocationReason, Token, TokenStatus } from '../index.js';
import { collected, count, duration, pair, positive, rate, waitOption } from './arguments.js';
import type { Context } from './context.js';
import { CommandError } from './exit.js';
import { list, printJson, say, show } from './output.js';

type Filter = Input<'revokeTokens'>['body']['filter'];

interface CreateOptions {
  description?: string;
  project?: string;
  scope: string[];
  expiresIn?: number;
  expiresAt?: string;
  allowIp: string[];
  rate?: { limit: number; windowSeconds: number };
  metadata?: Record<string, string>;
}
interface RevokeOptions {
  project?: string;
  owner?: string;
  createdBefore?: string;
  prefix?: string;
  status?: TokenStatus;
  dryRun?: boolean;
  expect?: number;
  reason?: RevocationReason;
  comment?: string;
  wait?: number;
}
interface ListOptions {
  project?: string;
  owner?: string;
  status?: TokenStatus;
  search?: string;
  limit: number;
  all?: boolean;
}

export function tokenFields(token: Token): [string, unknown][] {
  return [
    ['id', token.id],
    ['name', token.name],
    ['kind', token.kind === 'pat' ? 'personal' : 'project'],
    ['owner', token.owner.name],
    ['status', token.status],
    ['scopes', token.scopes],
    ['expires', token.expiresAt ?? 'never'],
    ['last used', token.lastUsedAt ?? 'never'],
    ['allowed addresses', token.allowedIps],
    ['rate limit', token.rateLimit && `${token.rateLimit.limit} in ${token.rateLimit.windowSeconds} s`],
  ];
}

/** The filters that were given. */
function filterOf(given: { [K in keyof Filter]: Filter[K] | undefined }): Filter {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** `latchkey tokens …` */
export function tokenCommands(program: Command, { output, exit }: Context, client: () => Promise<Client>): void {
  const tokens = program.command('tokens').description('issue, list, rotate and revoke tokens');

  tokens
    .command('create <name>')
    .description('issue a token; its secret goes to standard output, once')
    .option('--description <text>', 'description')
    .option('--project <id>', 'a token of this project, not a personal one')
    .option('--scope <scope>', 'a scope of the token; can be repeated', collected, [])
    .option('--expires-in <time>', 'lifetime, such as 90d', duration)
    .option('--expires-at <time>', 'expiry, RFC 3339')
    .option('--allow-ip <address>', 'an address or CIDR from which it may be used; can be repeated', collected, [])
    .option('--rate <requests/seconds>', 'rate limit', rate)
    .option('--metadata <name=value>', 'can be repeated', pair)
    .action(async (name: string, options: CreateOptions) => {
      const token = await (await client()).issueToken({
        body: {
          name,
          scopes: options.scope,
          allowedIps: options.allowIp,
          ...(options.project ? { kind: 'prj', projectId: options.project } : {}),
          ...(options.description !== undefined ? { description: options.description } : {}),
          ...(options.expiresIn !== undefined ? { expiresInSeconds: options.expiresIn } : {}),
          ...(options.expiresAt !== undefined ? { expiresAt: options.expiresAt } : {}),
          ...(options.rate ? { rateLimit: options.rate } : {}),
          ...(options.metadata ? { metadata: options.metadata } : {}),
        },
      });
      if (!('secret' in token))
        throw new CommandError(
          'failed',
          `the token ${token.id} was issued, but the response with its secret was lost; run latchkey tokens rotate ${token.id}`,
        );
      printIssued(token);
    });

  tokens
    .command('list')
    .description('tokens that you may see, newest first')
    .option('--project <id>', 'of this project')
    .option('--owner <id>', '"me", or a person or project')
    .option('--status <status>', 'active, expired, revoked or disabled')
    .option('--search <text>', 'in name, start and description')
    .option('--limit <count>', 'at most this many', positive, 25)
    .option('--all', 'all of them')
    .action(async (options: ListOptions) => {
      const query = {
        ...(options.project ? { projectId: options.project } : {}),
        ...(options.owner ? { owner: options.owner } : {}),
        ...(options.status ? { status: options.status } : {}),
        ...(options.search ? { q: options.search } : {}),
        limit: options.all ? 100 : Math.min(100, options.limit),
      };
      const found: Token[] = [];
      for await (const token of (await client()).each('listTokens', { query })) {
        if (!options.all && found.length === options.limit) {
          say(output, `There are more: --limit or --all shows them.`);
          break;
        }
        found.push(token);
      }
      list(output, found, [
        ['ID', (t) => t.id],
        ['NAME', (t) => t.name],
        ['START', (t) => `${t.start}…`],
        ['OWNER', (t) => t.owner.name],
        ['STATUS', (t) => t.status],
        ['SCOPES', (t) => t.scopes],
        ['EXPIRES', (t) => t.expiresAt ?? 'never'],
        ['LAST USED', (t) => t.lastUsedAt ?? 'never'],
      ]);
    });

  tokens
    .command('show <id>')
    .description('one token; "self" is the one that commands use')
    .action(async (id: string) => {
      const api = await client();
      const token = id === 'self' ? await api.getSelf() : await api.getToken({ params: { id } });
      show(output, token, tokenFields(token));
    });

  tokens
    .command('revoke [id]')
    .description(
      'revoke a token everywhere; "self" is the one that commands use. Without an id: tokens that match all filters',
    )
    .option('--project <id>', 'filter: of this project')
    .option('--owner <id>', 'filter: "me", or a person or project')
    .option('--created-before <time>', 'filter: RFC 3339')
    .option('--prefix <start>', 'filter: the first characters of the secret, such as lk_pat_3x')
    .option('--status <status>', 'filter: active, expired or disabled')
    .option('--dry-run', 'with filters: show what would be revoked')
    .option('--expect <count>', 'with filters, required to revoke: revoke nothing if more than this match', count)
    .option(
      '--reason <reason>',
      'exposed (also revokes tokens issued or rotated with it), superseded, no_longer_needed, owner_left, policy or unspecified',
    )
    .option('--comment <text>', 'for the audit log')
    .addOption(waitOption())
    .action(async (id: string | undefined, options: RevokeOptions) => {
      const { project, owner, createdBefore, prefix, status, dryRun, expect, wait, ...body } = options;
      const waiting = wait === undefined ? {} : { waitSeconds: wait };
      const filter = filterOf({ projectId: project, owner, createdBefore, prefix, status });
      const isFiltered = Object.keys(filter).length > 0;
      if (isFiltered === (id !== undefined) || (!isFiltered && (dryRun || expect !== undefined)))
        throw new CommandError(
          'usage',
          'give either the id of a token or filters; --dry-run and --expect need filters',
        );
      // An empty variable instead of an id must not revoke all that match a filter.
      if (isFiltered && !dryRun && expect === undefined)
        throw new CommandError('usage', 'filters need --dry-run, or --expect with the count that it showed');
      const api = await client();
      if (id === undefined) {
        const wanted = { filter, reason: 'unspecified' as const, ...body, ...(expect !== undefined && { expect }) };
        return printMany(await api.revokeTokens({ body: { ...wanted, dryRun: dryRun ?? false } }, waiting));
      }
      const effect =
        id === 'self' ? await api.revokeSelf({}, waiting) : await api.revokeToken({ params: { id }, body }, waiting);
      printEffect(effect);
    });

  tokens
    .command('rotate <id>')
    .description('issue a successor and revoke this token; the new secret goes to standard output, once')
    .option('--overlap <time>', 'how long the old secret still works, such as 10m', duration)
    .option('--expires-in <time>', 'lifetime of the successor', duration)
    .addOption(waitOption())
    .action(async (id: string, options: { overlap?: number; expiresIn?: number; wait?: number }) => {
      const api = await client();
      const body = {
        ...(options.overlap !== undefined ? { overlapSeconds: options.overlap } : {}),
        ...(options.expiresIn !== undefined ? { expiresInSeconds: options.expiresIn } : {}),
      };
      const waiting = options.wait === undefined ? {} : { waitSeconds: options.wait };
      const rotated =
        id === 'self'
          ? await api.rotateSelf({ body }, waiting)
          : await api.rotateToken({ params: { id }, body }, waiting);
      printIssued(rotated);
      if (!output.json)
        say(
          output,
          `${options.overlap ? "The old token's new expiry is" : 'The old token is revoked;'} ${reach(rotated)}.`,
        );
      if (id === 'self') say(output, 'Store the new secret: latchkey login');
      if (!rotated.effective) exit('notEffective');
    });

  tokens
    .command('usage <id>')
    .description('how a token was used, by hour, route and outcome; and from where')
    .option('--from <time>', 'RFC 3339')
    .option('--to <time>', 'RFC 3339')
    .action(async (id: string, query: { from?: string; to?: string }) => {
      const usage = await (await client()).tokenUsage({ params: { id }, query });
      if (output.json) return printJson(output, usage);
      list(output, usage.buckets, [
        ['HOUR', (b) => b.hour],
        ['ROUTE', (b) => b.route],
        ['OUTCOME', (b) => b.status],
        ['COUNT', (b) => b.count],
      ]);
      output.out.write('\n');
      list(output, usage.callers, [
        ['ADDRESS', (c) => c.ip],
        ['USER AGENT', (c) => c.userAgent],
        ['FIRST SEEN', (c) => c.firstSeen],
        ['LAST SEEN', (c) => c.lastSeen],
        ['COUNT', (c) => c.count],
      ]);
      say(output, `${usage.total} in all`);
    });

  /** The secret alone on standard output, so that it can be piped; all else on standard error. */
  function printIssued(token: IssuedToken): void {
    if (output.json) {
      printJson(output, token);
      return;
    }
    say(
      output,
      `Issued "${token.name}" (${token.id}), ${token.expiresAt ? `until ${token.expiresAt}` : 'without expiry'}.`,
    );
    say(output, 'This is its secret; it is not shown again:');
    output.out.write(`${token.secret}\n`);
  }

  function printEffect(effect: Body<'revokeToken'>): void {
    if (output.json) printJson(output, effect);
    else {
      const { token } = effect;
      // A token-service of version 0.1 does not return `ended`.
      const ended: (typeof effect)['ended'] | undefined = effect.ended;
      const further = ended && ended.tokens > 1 ? `, ${ended.tokens} tokens in all` : '';
      output.out.write(`Revoked "${token.name}" (${token.id})${further}; ${reach(effect)}.\n`);
    }
    if (!effect.effective) exit('notEffective');
  }

  function printMany(result: Body<'revokeTokens'>): void {
    if (output.json) printJson(output, result);
    else if ('tokens' in result) {
      list(output, result.tokens, [
        ['ID', (t) => t.id],
        ['NAME', (t) => t.name],
        ['START', (t) => `${t.start}…`],
        ['OWNER', (t) => t.owner.name],
        ['STATUS', (t) => t.status],
      ]);
      say(output, `${result.matched} would be revoked; none is. To revoke at most as many: --expect ${result.matched}`);
    } else {
      const { matched, ended } = result;
      output.out.write(`${matched} matched, ${ended.tokens} revoked; ${reach(result)}.\n`);
    }
    if ('effective' in result && !result.effective) exit('notEffective');
  }

  function reach({ effective, receipt, pending }: Effect): string {
    if (effective) return `effective everywhere${receipt ? ` after ${Math.round(receipt.elapsedMs)} ms` : ''}`;
    if (pending.length === 0) return 'revoking continues: repeat it to see the result';
    return `not yet confirmed by ${pending.map(({ name }) => name).join(', ')}`;
  }
}
