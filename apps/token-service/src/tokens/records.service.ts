import type { ListTokensQuery, RevocationReason, Token } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { notFound, type Page, pageOf } from '../http/index.js';
import { receiptAsSeen } from '../invalidation/index.js';
import { STATUS, selectPage } from './listing.js';
import { Order } from './order.js';
import type { NewToken } from './token.repository.js';

interface RecordRow {
  id: string;
  name: string;
  description: string;
  kind: Token['kind'];
  owner_user_id: string | null;
  project_id: string | null;
  owner_name: string;
  created_by_type: Token['createdBy']['type'];
  created_by_id: string | null;
  created_by_name: string | null;
  scopes: string[];
  start: string;
  status: Token['status'];
  created_at: Date;
  ends_at: Date | null;
  last_used_at: Date | null;
  last_used_ip: string | null;
  usage_count: string | null;
  revoked_at: Date | null;
  revoked_by_type: Token['createdBy']['type'] | null;
  revoked_by_id: string | null;
  revoked_by_name: string | null;
  revocation_reason: RevocationReason | null;
  rotated_from: string | null;
  rotated_to: string | null;
  allowed_ips: string[];
  rate_limit: number | null;
  rate_window_seconds: number | null;
  metadata: Record<string, string>;
  ancestors: string[];
  receipt: Token['receipt'];
}

const ofAll = (column: string, own: string): string =>
  `CASE WHEN e.generation IS NULL THEN t.${own} ELSE e.${column} END AS ${own}`;
const COLUMNS = `t.id, t.name, t.description, t.kind, t.owner_user_id, t.project_id, t.created_by_type, t.created_by_id,
  t.scopes, t.start, t.created_at, t.ends_at, t.rotated_from,
  t.rotated_to, t.allowed_ips, t.rate_limit, t.rate_window_seconds, t.metadata, t.ancestors,
  ${ofAll('at', 'revoked_at')}, ${ofAll('actor_type', 'revoked_by_type')}, ${ofAll('actor_id', 'revoked_by_id')},
  ${ofAll('reason', 'revocation_reason')}, ${ofAll('receipt', 'receipt')},
  CASE WHEN e.generation IS NULL THEN ${STATUS} ELSE 'revoked' END AS status`;
/** Tokens, each with what has ended it together with everything, where its row does not say that it was revoked. */
const TOKENS = 'tokens t LEFT JOIN revocations_of_all e ON e.generation = t.generation + 1 AND t.revoked_at IS NULL';

/** Adds names and usage to the rows of a page, by primary keys alone. */
const withNames = (page: string) => `
SELECT t.*, COALESCE(ou.name, op.name) AS owner_name, COALESCE(cu.name, ct.name) AS created_by_name,
  COALESCE(ru.name, rt.name) AS revoked_by_name, tu.last_used_at, tu.last_used_ip, tu.usage_count
FROM (${page}) t
LEFT JOIN users ou ON ou.id = t.owner_user_id
LEFT JOIN projects op ON op.id = t.project_id
LEFT JOIN users cu ON cu.id = t.created_by_id
LEFT JOIN tokens ct ON ct.id = t.created_by_id
LEFT JOIN users ru ON ru.id = t.revoked_by_id
LEFT JOIN tokens rt ON rt.id = t.revoked_by_id
LEFT JOIN token_usage tu ON tu.token_id = t.id`;

const SELECT_RECORD = withNames(`SELECT ${COLUMNS} FROM ${TOKENS} WHERE t.id = $1`);
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
    const sql = withNames(`SELECT ${COLUMNS} FROM ${TOKENS} WHERE t.id = ANY ($1)`);
    const read = await this.db.prepared<RecordRow>('token-records', sql, [ids]);
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
  const { rate_limit: limit, rate_window_seconds: windowSeconds } = row;
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    kind: row.kind,
    owner: {
      type: row.kind === 'pat' ? 'user' : 'project',
      id: (row.owner_user_id ?? row.project_id)!,
      name: row.owner_name,
    },
    createdBy: { type: row.created_by_type, id: row.created_by_id, name: row.created_by_name ?? row.created_by_type },
    scopes: row.scopes,
    start: row.start,
    status: row.status,
    createdAt: row.created_at.toISOString(),
    expiresAt: iso(row.ends_at),
    lastUsedAt: iso(row.last_used_at),
    lastUsedIp: row.last_used_ip,
    usageCount: Number(row.usage_count ?? 0),
    revokedAt: iso(row.revoked_at),
    revokedBy: row.revoked_by_type && {
      type: row.revoked_by_type,
      id: row.revoked_by_id,
      name: row.revoked_by_name ?? row.revoked_by_type,
    },
    revocationReason: row.revocation_reason,
    rotatedFrom: row.rotated_from,
    rotatedTo: row.rotated_to,
    allowedIps: row.allowed_ips,
    rateLimit: limit === null || windowSeconds === null ? null : { limit, windowSeconds },
    metadata: row.metadata,
    parentId: row.ancestors[0] ?? null,
    receipt: receiptAsSeen(row.receipt),
  };
}

/** The record of a token issued just now, as `read` would answer it. */
export function recordOfNew(token: NewToken & { start: string }, names: { owner: string; maker: string }): Token {
  const { ownerUserId, projectId, createdByType, createdById, rateLimit } = token;
  return toRecord({
    id: token.id,
    name: token.name,
    description: token.description,
    kind: token.kind,
    owner_user_id: ownerUserId,
    project_id: projectId,
    owner_name: names.owner,
    created_by_type: createdByType,
    created_by_id: createdById,
    created_by_name: names.maker,
    scopes: [...token.scopes],
    start: token.start,
    status: 'active',
    created_at: token.createdAt,
    ends_at: token.expiresAt,
    last_used_at: null,
    last_used_ip: null,
    usage_count: null,
    revoked_at: null,
    revoked_by_type: null,
    revoked_by_id: null,
    revoked_by_name: null,
    revocation_reason: null,
    rotated_from: token.rotatedFrom,
    rotated_to: null,
    allowed_ips: [...token.allowedIps],
    rate_limit: rateLimit?.limit ?? null,
    rate_window_seconds: rateLimit?.windowSeconds ?? null,
    metadata: token.metadata,
    ancestors: token.ancestors,
    receipt: null,
  });
}
