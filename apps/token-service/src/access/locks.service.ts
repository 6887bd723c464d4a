import type { PersonRole, ProjectRole } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import { rows, type Tx } from '../database/database.service.js';
import { Refusal } from '../http/index.js';
import { FactsService } from '../tokens/facts.service.js';
import type { Actor, TokenActor, UserActor } from './actor.js';
import { rightsOfPerson, rightsOfToken } from './rights.js';
import { ScopesService } from './scopes.service.js';

/** Ids of rows, by table. */
export interface Rows {
  users?: readonly string[];
  projects?: readonly string[];
  tokens?: readonly string[];
}

const GONE = 'The sign-in or token that makes this request has just ended. Sign in again, or use another token.';

/**
 * What a change rests on, held still until it commits. Everybody locks in one order (people, projects, sessions,
 * tokens; by id within each), so that changes wait for each other and do not deadlock. A change of memberships locks
 * the person, so a person's row stands for all their rights.
 */
@Injectable()
export class LocksService {
  constructor(
    private readonly scopes: ScopesService,
    private readonly facts: FactsService,
  ) {}

  /**
   * Locks the actor and what the change rests on against change (`FOR SHARE`), and what it changes (`FOR NO KEY
   * UPDATE`), then reads the actor again.
   * @returns the actor with the rights of this moment, which stand until the transaction ends
   * @throws Refusal `invalid_token` or `unauthenticated` when the actor has ended meanwhile
   */
  async hold<A extends Actor>(tx: Tx, actor: A, lock: { change?: Rows; rest?: Rows } = {}): Promise<A> {
    const { change = {}, rest = {} } = lock;
    const userId = actor.userId === null ? [] : [actor.userId];
    await lockRows(tx, 'users', change.users, [...(rest.users ?? []), ...userId]);
    const projectId = actor.type === 'token' && actor.projectId ? [actor.projectId] : [];
    await lockRows(tx, 'projects', change.projects, [...(rest.projects ?? []), ...projectId]);
    if (actor.type === 'user') await lockRows(tx, 'sessions', [], [actor.sessionId]);
    const carrying = actor.type === 'token' ? [actor.tokenId, ...actor.facts.ancestors] : [];
    await lockRows(tx, 'tokens', change.tokens, [...(rest.tokens ?? []), ...carrying]);
    return (actor.type === 'user' ? await this.#readUser(tx, actor) : await this.#readToken(tx, actor)) as A;
  }

  async #readUser(tx: Tx, actor: UserActor): Promise<UserActor> {
    const [row] = await rows<{ name: string; role: PersonRole; memberships: [string, ProjectRole][] | null }>(
      tx,
      `SELECT u.name, u.role, (
         SELECT json_agg(json_build_array(m.project_id, m.role)) FROM members m
         JOIN projects p ON p.id = m.project_id AND p.closed_at IS NULL WHERE m.user_id = u.id
       ) AS memberships
       FROM users u JOIN sessions s ON s.user_id = u.id AND s.id = $2 AND s.expires_at > now()
       WHERE u.id = $1 AND u.disabled_at IS NULL`,
      [actor.userId, actor.sessionId],
    );
    if (!row) throw new Refusal('unauthenticated', GONE, { bearer: true });
    const memberships = (row.memberships ?? []).map(([projectId, role]) => ({ projectId, role }));
    return { ...actor, name: row.name, rights: rightsOfPerson(this.scopes, row.role, memberships) };
  }

  async #readToken(tx: Tx, actor: TokenActor): Promise<TokenActor> {
    const found = await this.facts.byId(tx, actor.tokenId);
    const ended = found && found.facts.expiresAtMs > 0 && found.facts.expiresAtMs <= Date.now();
    if (!found || found.facts.denial || ended) throw new Refusal('invalid_token', GONE, { bearer: true });
    return { ...actor, name: found.name, facts: found.facts, rights: rightsOfToken(found.facts) };
  }
}

/** Locks rows one after another in the order of their ids, each as strongly as it needs. */
export async function lockRows(
  tx: Tx,
  table: 'users' | 'projects' | 'sessions' | 'tokens',
  change: readonly string[] = [],
  rest: readonly string[] = [],
): Promise<void> {
  const strong = new Set(change);
  const ids = [...new Set([...change, ...rest])].sort();
  for (const id of ids) {
    const strength = strong.has(id) ? 'FOR NO KEY UPDATE' : 'FOR SHARE';
    await tx.query(`SELECT 1 FROM ${table} WHERE id = $1 ${strength}`, [id]);
  }
}
