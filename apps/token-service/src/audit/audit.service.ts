import type { AuditAction, AuditEvent, auditExportQuery, auditQuery } from '@latchkey/contracts';
import { type AuditRow, EVENT_COLUMNS, newId, toEvent } from '@latchkey/runtime';
import { Injectable } from '@nestjs/common';
import type { QueryResultRow } from 'pg';
import type { z } from 'zod';
import { actorId, type NamedActor } from '../authorization/index.js';
import { type Change, Database, insertAllInto } from '../database/index.js';
import { type Page, type Position, pageOf, readCursor, requestContext, writeCursor } from '../http/index.js';
import { AuditEventEntity } from './event.js';
import { type ExportFormat, LINES, type Pages } from './lines.js';

/** An audit event to be written. */
export interface AuditEntry {
  actor: NamedActor;
  action: AuditAction;
  tokenId?: string | null;
  projectId?: string | null;
  subject?: { type: NonNullable<AuditEvent['subject']>['type']; id: string; name: string };
  /** Never a secret, a password, or a hash of either. */
  details?: Record<string, unknown>;
}

/** An event as a receipt contains it. */
export interface ChangeRow extends Pick<AuditEventEntity, 'id' | 'at' | 'token_id' | 'project_id'> {
  action: string;
  reason: string | null;
  subject_type: string;
  subject_id: string;
}

/** Most remembered events of one transaction, and most remembered transactions. */
const REMEMBERED_MAX = 100;
const TRANSACTIONS_MAX = 1_000;

/** Lines of an export that are read at a time. */
const PAGE = 1_000;

const reasonOf = ({ reason }: Record<string, unknown>) => (typeof reason === 'string' ? reason : null);

type Filters = Omit<z.output<typeof auditExportQuery>, 'format'>;

/** The audit log: written in the transaction of the change, or neither is; read page by page or as a stream. */
@Injectable()
export class AuditService {
  /** Events of transactions that this process has just committed, by transaction id, until `take` is called. */
  readonly #committed = new Map<string, readonly ChangeRow[] | undefined>();

  constructor(private readonly db: Database) {}

  /** The events of a transaction that this process has just committed, once; undefined: they must be read. */
  take(xid: string): readonly ChangeRow[] | undefined {
    const events = this.#committed.get(xid);
    this.#committed.delete(xid);
    return events;
  }

  /** Writes an event in the change's own transaction, with the origin of the request. */
  record(change: Change, entry: AuditEntry): void {
    this.recordAll(change, [entry]);
  }

  /** Several events of one transaction, in one statement. */
  recordAll(change: Change, entries: readonly AuditEntry[]): void {
    if (entries.length === 0) return;
    const context = requestContext.getStore();
    const at = new Date();
    const events = entries.map(
      ({ actor, action, tokenId, projectId, subject, details }): AuditEventEntity => ({
        id: newId(),
        at,
        actor_type: actor.type,
        actor_id: actorId(actor),
        actor_name: actor.name,
        action,
        token_id: tokenId ?? null,
        project_id: projectId ?? null,
        subject_type: subject?.type ?? null,
        subject_id: subject?.id ?? null,
        subject_name: subject?.name ?? null,
        ip: context?.ip ?? null,
        user_agent: context?.userAgent ?? null,
        request_id: context?.requestId ?? null,
        details: { ...details, ...(context?.rpcCaller && { caller: context.rpcCaller }) },
      }),
    );
    const [text, values] = insertAllInto(AuditEventEntity, events);
    const take = ([written]: QueryResultRow[]) => written && this.#remember(written['xid'], events);
    change.write([`${text} RETURNING xid::text AS xid`, values, { take }]);
  }

  /** Remembers all events that one transaction wrote, or none of them. */
  #remember(xid: string, events: readonly AuditEventEntity[]): void {
    const [oldest] = this.#committed.keys();
    if (this.#committed.size >= TRANSACTIONS_MAX && oldest !== xid) this.#committed.delete(oldest!);
    const rows = events.flatMap(({ subject_type, subject_id, details, ...event }) =>
      subject_type && subject_id ? [{ ...event, subject_type, subject_id, reason: reasonOf(details) }] : [],
    );
    const before = this.#committed.has(xid) ? this.#committed.get(xid) : [];
    this.#committed.set(
      xid,
      before && before.length + events.length <= REMEMBERED_MAX ? [...before, ...rows] : undefined,
    );
  }

  /** One page of events, newest first; the cursor neither repeats nor misses an existing event. */
  async list(query: z.output<typeof auditQuery>): Promise<Page<AuditEvent>> {
    const { limit, cursor, ...filters } = query;
    const after = cursor === undefined ? undefined : readCursor(cursor);
    const found = await this.#select<AuditRow>(EVENT_COLUMNS, filters, { after, limit: limit + 1, order: 'DESC' });
    const { items, nextCursor } = pageOf(found, limit, ({ at, id }) => writeCursor({ createdAt: at, id }));
    return { items: items.map(toEvent), nextCursor };
  }

  /** All matching events up to now, oldest first, as lines, in pages that are read on demand. */
  async *export(filters: Filters, format: ExportFormat): Pages {
    const bounded = { ...filters, to: filters.to ?? new Date().toISOString() };
    let after: Position | undefined;
    for (;;) {
      const found = await this.#select<{ id: string; at: Date; line: string }>(
        `e.id, e.at, ${LINES[format].sql} AS line`,
        bounded,
        { after, limit: PAGE, order: 'ASC' },
      );
      if (found.length === 0) return;
      yield found.map(({ line }) => line);
      const last = found.at(-1)!;
      after = { createdAt: last.at, id: last.id };
    }
  }

  async #select<Row extends { id: string; at: Date }>(
    columns: string,
    filters: Filters,
    page: { after: Position | undefined; limit: number; order: 'ASC' | 'DESC' },
  ): Promise<Row[]> {
    const values: unknown[] = [];
    const where: string[] = [];
    const add = (condition: (place: string) => string, value: unknown) => {
      if (value === undefined) return;
      values.push(value);
      where.push(condition(`$${values.length}`));
    };
    add((p) => `e.actor_id = ${p}`, filters.actor);
    add((p) => `e.token_id = ${p}`, filters.tokenId);
    add((p) => `e.project_id = ${p}`, filters.projectId);
    add((p) => `e.action = ${p}`, filters.action);
    add((p) => `e.at >= ${p}`, filters.from);
    add((p) => `e.at < ${p}`, filters.to);
    if (page.after) {
      values.push(page.after.createdAt, page.after.id);
      where.push(`(e.at, e.id) ${page.order === 'ASC' ? '>' : '<'} ($${values.length - 1}, $${values.length})`);
    }
    values.push(page.limit);
    return this.db.query<Row>(
      `SELECT ${columns} FROM audit_events e LEFT JOIN audit_links l ON l.event_id = e.id
       ${where.length ? `WHERE ${where.join(' AND ')}` : ''}
       ORDER BY e.at ${page.order}, e.id ${page.order} LIMIT $${values.length}`,
      values,
    );
  }
}
