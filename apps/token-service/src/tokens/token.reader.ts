import type { ListTokensQuery, Token } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { notFound, type Page, pageOf } from '../http/index.js';
import { receiptAsSeen } from '../invalidation/index.js';
import { selectPage } from './listing.js';
import { Order } from './order.js';
import { AS_ISSUED, type NewToken } from './token.entity.js';
import { SELECT_TOKEN_VIEW, SELECT_TOKEN_VIEWS, type TokenViewRow } from './token.queries.js';

/** Reads tokens as the API shows them, one by one and in pages. */
@Injectable()
export class TokenReader {
  constructor(private readonly db: Database) {}

  /** The token, without a check of the caller. @throws ApiError `not_found` */
  async read(id: string): Promise<Token> {
    const [row] = await this.db.prepared<TokenViewRow>('token-record', SELECT_TOKEN_VIEW, [id]);
    if (!row) throw notFound('token');
    return toToken(row);
  }

  /** Pages of the tokens that the caller may see, newest first by default; includes revoked and expired ones. */
  async list(actor: Actor, query: ListTokensQuery): Promise<Page<Token>> {
    const values: unknown[] = [];
    const order = new Order(query.sort);
    const page = selectPage(query, ownersWith(actor, 'tokens:read', query), order, (value) => `$${values.push(value)}`);
    const found = await this.db.page<Parameters<Order['at']>[0]>(page, values);
    const { items, nextCursor } = pageOf(found, query.limit, (last) => order.at(last));
    return { items: await this.readAll(items.map(({ id }) => id)), nextCursor };
  }

  /** The tokens in the order of the ids, without those that no longer exist. */
  async readAll(ids: string[]): Promise<Token[]> {
    const read = await this.db.prepared<TokenViewRow>('token-records', SELECT_TOKEN_VIEWS, [ids]);
    const found = new Map(read.map((row) => [row.id, row]));
    return ids.flatMap((id) => found.get(id) ?? []).map(toToken);
  }
}

const ownProject = (actor: Actor): string | null => (actor.type === 'token' ? actor.projectId : null);

/**
 * The requested owners, people and projects, on whose tokens the caller may use the scope: `mayUseScopeOn` as a list of
 * owners.
 */
export function ownersWith(
  actor: Actor,
  scope: 'tokens:read' | 'tokens:write',
  query: Pick<ListTokensQuery, 'owner' | 'projectId'>,
): 'all' | string[] {
  const projects = actor.rights.projectsWith(scope);
  const wanted = query.owner === 'me' ? (actor.userId ?? ownProject(actor)) : query.owner;
  const requested = [
    ...(wanted === undefined ? [] : [wanted]),
    ...(query.projectId === undefined ? [] : [query.projectId]),
  ];
  if (requested.length === 2 && requested[0] !== requested[1]) return [];
  if (projects === 'all') return requested.length ? requested.slice(0, 1).filter((id) => id !== null) : 'all';
  const own = actor.userId !== null && actor.rights.holds(scope) ? [actor.userId] : [];
  const visible = [...own, ...projects];
  return requested.length ? visible.filter((id) => id === requested[0]) : visible;
}

const iso = (time: Date | null): string | null => time?.toISOString() ?? null;

function toToken(row: TokenViewRow): Token {
  const createdBy = { type: row.createdByType, id: row.createdById, name: row.createdByName ?? row.createdByType };
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
      disabled: row.ownerDisabled,
    },
    createdBy,
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

/** A token issued just now, as `read` would return it. */
export const tokenOfNew = (token: NewToken, ownerName: string, createdByName: string): Token =>
  toToken({
    ...AS_ISSUED,
    ...token,
    ...{ ownerName, ownerDisabled: false, createdByName, revokedByName: null },
    ...{ endsAt: token.expiresAt, status: 'active', lastUsedAt: null, lastUsedIp: null, usageCount: null },
  });
