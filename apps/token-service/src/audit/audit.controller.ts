import { Readable } from 'node:stream';
import { Controller, Res } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, Input, type InputOf } from '../http/index.js';
import { AuditService } from './audit.service.js';
import { AuditChain } from './chain.service.js';
import { DenialsService } from './denials.service.js';
import { type ExportFormat, LINES, type Pages, readAhead } from './lines.js';

/** The HTTP endpoints of the audit log. */
@Controller()
export class AuditController {
  constructor(
    private readonly audit: AuditService,
    private readonly chain: AuditChain,
    private readonly denials: DenialsService,
  ) {}

  @Call('listAudit')
  list(@Input() { query }: InputOf<'listAudit'>) {
    return this.audit.list(query);
  }

  @Call('getDenial')
  denial(@Caller() actor: Actor, @Input() { params }: InputOf<'getDenial'>) {
    return this.denials.read(actor, params.requestId);
  }

  @Call('exportAudit')
  async export(@Input() { query }: InputOf<'exportAudit'>, @Res() reply: FastifyReply): Promise<void> {
    const { format, ...filters } = query;
    // Without filters it is the whole chain in its order, with its checkpoints.
    const whole = Object.values(filters).every((filter) => filter === undefined);
    const pages = readAhead(whole ? this.chain.export(format) : this.audit.export(filters, format));
    const first = await pages.next(); // an unavailable database still gets its error response
    reply.header('content-type', format === 'csv' ? 'text/csv; charset=utf-8; header=present' : 'application/x-ndjson');
    reply.header('content-disposition', `attachment; filename="audit.${format}"`);
    await reply.send(Readable.from(linesOf(format, first, pages), { objectMode: false }));
  }

  @Call('verifyAudit')
  verify() {
    return this.chain.verify();
  }
}

async function* linesOf(format: ExportFormat, first: IteratorResult<string[]>, rest: Pages): AsyncGenerator<string> {
  const { head, end } = LINES[format];
  try {
    if (head) yield head;
    if (first.done) return;
    yield first.value.join(end) + end;
    for await (const page of rest) yield page.join(end) + end;
  } finally {
    await rest.return(undefined); // the client may have disconnected
  }
}
