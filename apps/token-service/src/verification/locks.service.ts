import type { PersonRole, ProjectRole } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { QueryResultRow } from 'pg';
import {
  type Actor,
  rightsOfPerson,
  rightsOfToken,
  ScopesService,
  type TokenActor,
  type UserActor,
} from '../authorization/index.js';
import { type Change, Database, type Statement } from '../database/index.js';
import { ApiError, restored } from '../http/index.js';
import { type SnapshotRow, SnapshotService, snapshotById } from './snapshot.service.js';

/** Ids of rows, by table. */
export interface Rows {
  users?: readonly string[];
  projects?: readonly string[];
  tokens?: readonly string[];
}

/** What a transaction locks: what it changes, and what the change depends on. */
interface Lock {
  change?: Rows;
  rest?: Rows;
}

/** What was read under the locks. */
export interface Locked<A extends Actor> {
  /** The actor with its current rights, which cannot change until the transaction ends. */
  now: A;
  /**
   * For tokens that the actor creates: the current generation, as read in the snapshot that showed the actor to be valid.
   * When everything is revoked after that, the new tokens are revoked too.
   */
  generation: number;
  read: QueryResultRow[][];
}

const GONE =
  'The session or token of this request has just expired or been revoked. Sign in again, or use another token.';

/**
 * Locks what a change depends on until it commits. All locks are taken in one order (people, projects, sessions, tokens; by
 * id within each), so that changes wait for each other and do not deadlock. A change of memberships locks the person, so
 * the lock on a person's row covers all their rights.
 */
@Injectable()
export class LocksService {
  constructor(
    private readonly db: Database,
    private readonly scopes: ScopesService,
    private readonly snapshots: SnapshotService,
  ) {}

  /**
   * Locks the actor and what the change depends on against change (`FOR SHARE`), and what it changes (`FOR NO KEY
   * UPDATE`), then reads the actor again.
   * @param reading what else is read under the locks
   * @throws ApiError `invalid_token`, `restored` or `unauthenticated` when the actor is no longer valid
   */
  async lock<A extends Actor>(
    change: Change,
    actor: A,
    { change: changed = {}, rest = {} }: Lock = {},
    ...reading: Statement[]
  ): Promise<Locked<A>> {
    const userId = actor.userId === null ? [] : [actor.userId];
    const projectId = actor.type === 'token' && actor.projectId ? [actor.projectId] : [];
    const sessionId = actor.type === 'user' ? [actor.sessionId] : [];
    const tokenIds = actor.type === 'token' ? [actor.tokenId, ...actor.snapshot.ancestors] : [];
    const locks = lockInOrder(changed, {
      users: [...(rest.users ?? []), ...userId],
      projects: [...(rest.projects ?? []), ...projectId],
      sessions: sessionId,
      tokens: [...(rest.tokens ?? []), ...tokenIds],
    });
    const selectActor: Statement =
      actor.type === 'user' ? [SELECT_USER, [actor.userId, actor.sessionId]] : snapshotById(actor.tokenId);
    const [, [row] = [], ...read] = await change.readAll([locks, selectActor, ...reading]);
    const now = actor.type === 'user' ? this.#user(actor, row as UserRow) : this.#token(actor, row as SnapshotRow);
    return { now: now as A, generation: (row as UserRow | SnapshotRow).current_generation!, read };
  }

  /** @throws ApiError as `lock` does when the actor is no longer valid: for work that outlasts the check of its request */
  async mustStillBe(actor: Actor): Promise<void> {
    await this.db.change((change) => this.lock(change, actor));
  }

  #user(actor: UserActor, row: UserRow | undefined): UserActor {
    if (!row) throw new ApiError('unauthenticated', GONE, { bearer: true });
    const memberships = (row.memberships ?? []).map(([projectId, role]) => ({ projectId, role }));
    return { ...actor, name: row.name, rights: rightsOfPerson(this.scopes, row.role, memberships) };
  }

  #token(actor: TokenActor, row: SnapshotRow | undefined): TokenActor {
    const found = row && this.snapshots.named(row);
    const isExpired = found && found.snapshot.expiresAtMs > 0 && found.snapshot.expiresAtMs <= Date.now();
    if (found?.snapshot.denial === 'restored') throw restored();
    if (!found || found.snapshot.denial || isExpired) throw new ApiError('invalid_token', GONE, { bearer: true });
    return { ...actor, name: found.name, snapshot: found.snapshot, rights: rightsOfToken(found.snapshot) };
  }
}

interface UserRow {
  current_generation: number | null;
  name: string;
  role: PersonRole;
  memberships: [string, ProjectRole][] | null;
}

const SELECT_USER = `SELECT (SELECT current FROM token_generation) AS current_generation, u.name, u.role, (
    SELECT json_agg(json_build_array(m.project_id, m.role)) FROM members m
    JOIN projects p ON p.id = m.project_id AND p.closed_at IS NULL WHERE m.user_id = u.id
  ) AS memberships
  FROM users u JOIN sessions s ON s.user_id = u.id AND s.id = $2 AND s.expires_at > now()
  WHERE u.id = $1 AND u.disabled_at IS NULL`;

const TABLES = ['users', 'projects', 'sessions', 'tokens'] as const;
type Table = (typeof TABLES)[number];

/** The statement that locks rows, table by table, in the order of their ids, each with the weakest sufficient lock. */
function lockInOrder(change: Partial<Record<Table, readonly string[]>>, rest: typeof change): Statement {
  const rows = TABLES.map((table) => [...new Set([...(change[table] ?? []), ...(rest[table] ?? [])])].sort());
  return ['SELECT lock_in_order($1, $2, $3, $4, $5)', [TABLES.flatMap((table) => change[table] ?? []), ...rows]];
}

/** Locks rows for a change, in the order of their ids. */
export async function lockRows(change: Change, table: Table, ids: readonly string[]): Promise<void> {
  await change.read(lockInOrder({ [table]: ids }, {}));
}
