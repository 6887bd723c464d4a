import type { ListTokensQuery, Token } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { notFound, type Page, pageOf } from '../http/index.js';
import { receiptAsSeen } from '../invalidation/index.js';
import { selectPage } from './listing.js';
import { Order } from './order.js';
import { AS_ISSUED, type NewToken } from './token.entity.js';
import { type RecordRow, SELECT_RECORD, SELECT_RECORDS } from './token.queries.js';

/** Tokens as people see them: records, one by one and in pages, as far as the caller may see. */
@Injectable()
export class RecordsService {
  constructor(private readonly db: Database) {}

  /** The record, whoever asks. */
  async read(id: string): Promise<Token> {
    const [row] = await this.db.prepared<RecordRow>('token-record', SELECT_RECORD, [id]);
    if (!row) throw notFound('token');
    return toRecord(row);
  }

  /** Pages through the tokens that the caller may see, newest first unless asked otherwise; revoked and expired ones too. */
  async list(actor: Actor, query: ListTokensQuery): Promise<Page<Token>> {
    const values: unknown[] = [];
    const order = new Order(query.sort);
    const page = selectPage(query, ownersWith(actor, 'tokens:read', query), order, (value) => `$${values.push(value)}`);
    const found = await this.db.page<Parameters<Order['at']>[0]>(page, values);
    const { items, nextCursor } = pageOf(found, query.limit, (last) => order.at(last));
    return { items: await this.readAll(items.map(({ id }) => id)), nextCursor };
  }

  /** The records in the order of the ids; one that went meanwhile is left out. */
  async readAll(ids: string[]): Promise<Token[]> {
    const read = await this.db.prepared<RecordRow>('token-records', SELECT_RECORDS, [ids]);
    const found = new Map(read.map((row) => [row.id, row]));
    return ids.flatMap((id) => found.get(id) ?? []).map(toRecord);
  }
}

const ownProject = (actor: Actor): string | null => (actor.type === 'token' ? actor.projectId : null);

/**
 * The people and projects that are asked for and on whose tokens the caller may use the scope: `mayUseScopeOn`, told as
 * owners.
 */
export function ownersWith(
  actor: Actor,
  scope: 'tokens:read' | 'tokens:write',
  query: Pick<ListTokensQuery, 'owner' | 'projectId'>,
): 'all' | string[] {
  const projects = actor.rights.projectsWith(scope);
  const wanted = query.owner === 'me' ? (actor.userId ?? ownProject(actor)) : query.owner;
  const asked = [
    ...(wanted === undefined ? [] : [wanted]),
    ...(query.projectId === undefined ? [] : [query.projectId]),
  ];
  if (asked.length === 2 && asked[0] !== asked[1]) return [];
  if (projects === 'all') return asked.length ? asked.slice(0, 1).filter((id) => id !== null) : 'all';
  const own = actor.userId !== null && actor.rights.holds(scope) ? [actor.userId] : [];
  const visible = [...own, ...projects];
  return asked.length ? visible.filter((id) => id === asked[0]) : visible;
}

const iso = (time: Date | null): string | null => time?.toISOString() ?? null;

function toRecord(row: RecordRow): Token {
  const maker = { type: row.createdByType, id: row.createdById, name: row.createdByName ?? row.createdByType };
  const { revokedByType: type, revokedById, revokedByName, rateLimit: limit, rateWindowSeconds: windowSeconds } = row;
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    kind: row.kind,
    owner: {
      type: row.kind === 'pat' ? 'user' : 'project',
      id: (row.ownerUserId ?? row.projectId)!,
      name: row.ownerName,
    },
    createdBy: maker,
    scopes: row.scopes,
    start: row.start,
    status: row.status,
    createdAt: row.createdAt.toISOString(),
    expiresAt: iso(row.endsAt),
    lastUsedAt: iso(row.lastUsedAt),
    lastUsedIp: row.lastUsedIp,
    usageCount: Number(row.usageCount ?? 0),
    revokedAt: iso(row.revokedAt),
    revokedBy: type && { type, id: revokedById, name: revokedByName ?? type },
    revocationReason: row.revocationReason,
    rotatedFrom: row.rotatedFrom,
    rotatedTo: row.rotatedTo,
    allowedIps: row.allowedIps,
    rateLimit: limit === null || windowSeconds === null ? null : { limit, windowSeconds },
    metadata: row.metadata,
    parentId: row.ancestors[0] ?? null,
    receipt: row.receipt && receiptAsSeen(row.receipt),
  };
}

/** The record of a token issued just now, as `read` would answer it. */
export const recordOfNew = (token: NewToken, ownerName: string, createdByName: string): Token =>
  toRecord({
    ...AS_ISSUED,
    ...token,
    ...{ ownerName, createdByName, revokedByName: null },
    ...{ endsAt: token.expiresAt, status: 'active', lastUsedAt: null, lastUsedIp: null, usageCount: null },
  });
