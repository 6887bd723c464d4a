import { Readable } from 'node:stream';
import type { AuditEvent } from '@latchkey/contracts';
import { Controller, Res } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import type { Actor } from '../access/index.js';
import { Call, Caller, Input, type InputOf } from '../http/index.js';
import { AuditService } from './audit.service.js';
import { AuditChain } from './chain.service.js';
import { DenialsService } from './denials.service.js';

/** The HTTP door of the audit log. */
@Controller()
export class AuditController {
  constructor(
    private readonly audit: AuditService,
    private readonly chain: AuditChain,
    private readonly denials: DenialsService,
  ) {}

  @Call('listAudit')
  list(@Input('listAudit') { query }: InputOf<'listAudit'>) {
    return this.audit.list(query);
  }

  @Call('getDenial')
  denial(@Caller() actor: Actor, @Input('getDenial') { params }: InputOf<'getDenial'>) {
    return this.denials.read(actor, params.requestId);
  }

  @Call('exportAudit')
  async export(@Input('exportAudit') { query }: InputOf<'exportAudit'>, @Res() reply: FastifyReply): Promise<void> {
    const { format, ...filters } = query;
    const lines = format === 'csv' ? csvLines : ndjsonLines;
    // Without filters it is the whole chain in its order, with what proves it.
    const whole = Object.values(filters).every((filter) => filter === undefined);
    const batches: Batches = whole ? this.chain.export() : this.audit.stream(filters);
    const first = await batches.next(); // a database that is away is still answered as such
    reply.header('content-type', format === 'csv' ? 'text/csv; charset=utf-8; header=present' : 'application/x-ndjson');
    reply.header('content-disposition', `attachment; filename="audit.${format}"`);
    await reply.send(Readable.from(lines(first, batches), { objectMode: false }));
  }

  @Call('verifyAudit')
  verify() {
    return this.chain.verify();
  }
}

type Batches = AsyncGenerator<AuditEvent[]>;

async function* all(first: IteratorResult<AuditEvent[]>, rest: Batches): AsyncGenerator<AuditEvent[]> {
  if (first.done) return;
  yield first.value;
  yield* rest;
}

async function* ndjsonLines(first: IteratorResult<AuditEvent[]>, rest: Batches): AsyncGenerator<string> {
  for await (const batch of all(first, rest)) yield batch.map((event) => `${JSON.stringify(event)}\n`).join('');
}

const columns: [string, (event: AuditEvent) => unknown][] = [
  ['id', (e) => e.id],
  ['seq', (e) => e.seq],
  ['at', (e) => e.at],
  ['actorType', (e) => e.actor.type],
  ['actorId', (e) => e.actor.id],
  ['actorName', (e) => e.actor.name],
  ['action', (e) => e.action],
  ['tokenId', (e) => e.tokenId],
  ['projectId', (e) => e.projectId],
  ['subjectType', (e) => e.subject?.type],
  ['subjectId', (e) => e.subject?.id],
  ['subjectName', (e) => e.subject?.name],
  ['ip', (e) => e.ip],
  ['userAgent', (e) => e.userAgent],
  ['requestId', (e) => e.requestId],
  ['details', (e) => JSON.stringify(e.details)],
  ['hash', (e) => e.hash],
];

/** RFC 4180; a text that a spreadsheet would take for a formula is made a text by an apostrophe. */
function csvField(value: unknown): string {
  const text = String(value ?? '');
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

async function* csvLines(first: IteratorResult<AuditEvent[]>, rest: Batches): AsyncGenerator<string> {
  yield `${columns.map(([name]) => name).join(',')}\r\n`;
  for await (const batch of all(first, rest))
    yield batch.map((event) => `${columns.map(([, of]) => csvField(of(event))).join(',')}\r\n`).join('');
}
