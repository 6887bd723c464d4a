import { hash, randomBytes } from 'node:crypto';
import type { PersonRole, ProjectRole, signInBody, User } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { rightsOfPerson, ScopesService, SYSTEM, type UserActor } from '../access/index.js';
import { AuditService } from '../audit/audit.service.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/database.service.js';
import { Refusal, requestContext } from '../http/index.js';
import { PeopleService } from '../people/people.service.js';

/** How long a sign-in lasts, whatever is done with it. */
export const SESSION_LIFETIME_SECONDS = 12 * 3_600;
const SEEN_EVERY_MS = 60_000;
const FAILURES_MAX = 10;
const FAILURES_WINDOW_SECONDS = 15 * 60;

const digest = (text: string): Buffer => hash('sha256', text, 'buffer');

interface SessionRow {
  id: string;
  user_id: string;
  name: string;
  role: PersonRole;
  seen_at: Date;
  memberships: [string, ProjectRole][] | null;
}

/** Sign-ins: a random value in a cookie, of which only the SHA-256 is kept. */
@Injectable()
export class SessionsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly people: PeopleService,
    private readonly scopes: ScopesService,
    @Inject(CONFIG) readonly config: TokenServiceConfig,
  ) {}

  /**
   * Signs a person in.
   * @returns the person, and the cookie's value
   * @throws Refusal `sign_in_failed`, the same for every cause; `rate_limited` after ten failures for one e-mail address
   *   from one address in 15 minutes
   */
  async signIn(body: z.output<typeof signInBody>): Promise<{ user: User; value: string }> {
    const { ip, userAgent } = requestContext.getStore() ?? { ip: null, userAgent: null };
    const email = body.email.toLowerCase();
    const subject = digest(`${email}\n${ip ?? ''}`);
    // Counted before the password is looked at, so that attempts made at once are counted each.
    await this.#countAttempt(subject);
    const user = await this.people.byPassword(email, body.password);
    if (!user) {
      await this.db.transaction((tx) =>
        this.audit.record(tx, { actor: SYSTEM, action: 'session.failed', details: { email } }),
      );
      throw new Refusal('sign_in_failed', 'The e-mail address or the password is wrong.');
    }
    const value = randomBytes(32).toString('base64url');
    const id = newId();
    await this.db.transaction(async (tx) => {
      const now = new Date();
      const end = new Date(now.getTime() + SESSION_LIFETIME_SECONDS * 1000);
      // A person disabled at this very moment gets no session: the row lock makes the two take turns.
      const inserted: unknown[] = await tx.query(
        `INSERT INTO sessions (id, user_id, hash, ip, user_agent, created_at, seen_at, expires_at)
         SELECT $1, u.id, $3, $4, $5, $6, $6, $7 FROM (
           SELECT id FROM users WHERE id = $2 AND disabled_at IS NULL FOR SHARE
         ) u RETURNING id`,
        [id, user.id, digest(value), ip ?? '', userAgent ?? '', now, end],
      );
      if (inserted.length === 0) throw new Refusal('sign_in_failed', 'The e-mail address or the password is wrong.');
      await tx.query('DELETE FROM sign_in_failures WHERE subject = $1', [subject]);
      const actor = {
        type: 'user' as const,
        userId: user.id,
        name: user.name,
        sessionId: id,
        rights: rightsOfPerson(this.scopes, user.role, []),
      };
      await this.audit.record(tx, {
        actor,
        action: 'session.started',
        subject: { type: 'session', id, name: user.name },
      });
    });
    return { user, value };
  }

  /** Who is signed in by this cookie; null when nobody is. */
  async actorBy(value: string): Promise<UserActor | null> {
    const [row] = await this.db.prepared<SessionRow>(
      'session-by-hash',
      `SELECT s.id, s.user_id, s.seen_at, u.name, u.role, (
         SELECT json_agg(json_build_array(m.project_id, m.role)) FROM members m
         JOIN projects p ON p.id = m.project_id AND p.closed_at IS NULL WHERE m.user_id = u.id
       ) AS memberships
       FROM sessions s JOIN users u ON u.id = s.user_id
       WHERE s.hash = $1 AND s.expires_at > now() AND u.disabled_at IS NULL`,
      [digest(value)],
    );
    if (!row) return null;
    if (Date.now() - row.seen_at.getTime() > SEEN_EVERY_MS)
      await this.db.query('UPDATE sessions SET seen_at = $2 WHERE id = $1', [row.id, new Date()]);
    const memberships = (row.memberships ?? []).map(([projectId, role]) => ({ projectId, role }));
    const rights = rightsOfPerson(this.scopes, row.role, memberships);
    return { type: 'user', userId: row.user_id, name: row.name, sessionId: row.id, rights };
  }

  /** Signs out. */
  async end(actor: UserActor): Promise<void> {
    await this.db.transaction(async (tx) => {
      const ended: [unknown[], number] = await tx.query('DELETE FROM sessions WHERE id = $1', [actor.sessionId]);
      if (ended[1] === 0) return;
      const subject = { type: 'session' as const, id: actor.sessionId, name: actor.name };
      await this.audit.record(tx, { actor, action: 'session.ended', subject });
    });
  }

  async #countAttempt(subject: Buffer): Promise<void> {
    const [row] = await this.db.query<{ count: number; seconds_left: number }>(
      `INSERT INTO sign_in_failures AS f (subject, count, since) VALUES ($1, 1, now())
       ON CONFLICT (subject) DO UPDATE SET
         count = CASE WHEN f.since < now() - make_interval(secs => $2) THEN 1 ELSE least(f.count + 1, 1000000) END,
         since = CASE WHEN f.since < now() - make_interval(secs => $2) THEN now() ELSE f.since END
       RETURNING count, ceil($2 - extract(epoch FROM now() - since))::int AS seconds_left`,
      [subject, FAILURES_WINDOW_SECONDS],
    );
    if (row!.count <= FAILURES_MAX) return;
    const seconds = Math.max(1, row!.seconds_left);
    throw new Refusal('rate_limited', `Too many failed sign-ins. Try again in ${Math.ceil(seconds / 60)} minutes.`, {
      headers: { 'retry-after': String(seconds) },
    });
  }
}
