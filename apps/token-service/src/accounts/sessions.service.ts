import { hash, randomBytes } from 'node:crypto';
import type { OwnSession, PersonRole, ProjectRole, signInBody, User } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { AuditService } from '../audit/index.js';
import { rightsOfPerson, ScopesService, SYSTEM, type UserActor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { Database, LOG_FILE } from '../database/index.js';
import { ApiError, cookieName, notFound, RatesService, requestContext, restored, writeCookie } from '../http/index.js';
import { AttemptsService } from './attempts.service.js';
import { endSessionsOf } from './end-sessions.js';
import { PeopleService } from './people.service.js';
import { SecondFactorService } from './second-factor.service.js';

/** Lifetime of a session, regardless of use. */
export const SESSION_LIFETIME_SECONDS = 12 * 3_600;
const SEEN_EVERY_MS = 60_000;
const FAILURES_RECORDED_PER_ADDRESS = { max: 50, windowSeconds: 900 };
const FAILURES_RECORDED = { max: 1_000, windowSeconds: 900 };

const digest = (text: string): Buffer => hash('sha256', text, 'buffer');

interface SessionRow {
  id: string;
  user_id: string;
  name: string;
  role: PersonRole;
  seen_at: Date;
  memberships: [string, ProjectRole][] | null;
}

interface OwnSessionRow {
  id: string;
  created_at: Date;
  seen_at: Date;
  expires_at: Date;
  ip: string;
  user_agent: string;
}

/** Out: before which moment tokens and sessions are not accepted, while a restore is not settled. */
const SELECT_RESTORED = 'SELECT restored_before FROM invalidation_log';

/** Sessions: a random value in a cookie, of which only the SHA-256 is stored. */
@Injectable()
export class SessionsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly people: PeopleService,
    private readonly scopes: ScopesService,
    private readonly attempts: AttemptsService,
    private readonly factors: SecondFactorService,
    private readonly rates: RatesService,
    @Inject(CONFIG) readonly config: TokenServiceConfig,
  ) {}

  /**
   * Signs a person in.
   * @returns the person, and the cookie's value
   * @throws ApiError `sign_in_failed`, the same for every cause; `rate_limited` after ten failures for one email address
   *   from one address in 15 minutes
   */
  async signIn(body: z.output<typeof signInBody>): Promise<{ user: User; value: string }> {
    const email = body.email.toLowerCase();
    const counted = await this.attempts.count(email);
    const found = await this.people.byPassword(email, body.password);
    if (!found) {
      await this.#recordFailure({ email });
      throw new ApiError('sign_in_failed', 'The email address or the password is wrong.');
    }
    const { user, passwordHash } = found;
    await this.#mustPassSecondFactor(user, body.code, counted);
    const value = await this.#begin(user, { counted, passwordHash });
    return { user, value };
  }

  /** Starts a session for a person whom the identity provider authenticated, which is responsible for second factors. */
  async startFor(user: User): Promise<string> {
    return this.cookie(await this.#begin(user), SESSION_LIFETIME_SECONDS);
  }

  async #mustPassSecondFactor(user: User, code: string | undefined, counted: Buffer): Promise<void> {
    // Six digits are few, so guesses are limited to ten in 15 minutes from all IP addresses together.
    const guesses = code === undefined ? null : await this.attempts.countFromAnywhere(`code ${user.id}`);
    try {
      await this.factors.mustPass(user.id, code);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // The password was right: a missing code does not count as a failure.
      if (error.code === 'second_factor_required') await this.attempts.forget(counted);
      else await this.#recordFailure({ email: user.email, secondFactor: true });
      throw error;
    }
    if (guesses) await this.attempts.forget(guesses);
  }

  /** Limited, so that deliberate failures cannot fill the audit log. */
  async #recordFailure(failure: Record<string, unknown>): Promise<void> {
    const ip = requestContext.getStore()?.ip ?? '';
    const here = await this.rates.tally('session.failed', ip, FAILURES_RECORDED_PER_ADDRESS);
    if (!here.allowed) return;
    const all = await this.rates.tally('session.failed', 'all', FAILURES_RECORDED);
    if (!all.allowed) return;
    const isLast = here.remaining === 0 || all.remaining === 0;
    const details = { ...failure, ...(isLast && { more: 'further failures in this quarter of an hour are left out' }) };
    await this.db.change(async (change) =>
      this.audit.record(change, { actor: SYSTEM, action: 'session.failed', details }),
    );
  }

  /**
   * @param counted the attempt that succeeded
   * @param passwordHash that the password matched: it can have changed since
   * @returns the cookie's value
   */
  async #begin(
    user: User,
    { counted, passwordHash }: { counted?: Buffer; passwordHash?: string } = {},
  ): Promise<string> {
    const { ip, userAgent } = requestContext.getStore() ?? { ip: null, userAgent: null };
    const value = randomBytes(32).toString('base64url');
    const id = newId();
    await this.db.change(async (change) => {
      // Passwords of before a restore may have been changed since: until it is settled, only who can settle it signs in.
      await this.db.mustBeAccepted(change);
      const [log] = await change.read<{ restored_before: Date | null }>([SELECT_RESTORED]);
      if (log?.restored_before && user.role !== 'admin') throw restored();
      const now = new Date();
      const end = new Date(now.getTime() + SESSION_LIFETIME_SECONDS * 1000);
      // The row lock ensures that no session starts after the person was disabled or the password changed.
      const inserted = await change.read([
        `INSERT INTO sessions (id, user_id, hash, ip, user_agent, created_at, seen_at, expires_at)
         SELECT $1, u.id, $3, $4, $5, $6, $6, $7 FROM (
           SELECT id FROM users WHERE id = $2 AND disabled_at IS NULL
             AND ($8::text IS NULL OR password_hash = $8) FOR SHARE
         ) u RETURNING id`,
        [id, user.id, digest(value), ip ?? '', userAgent ?? '', now, end, passwordHash ?? null],
      ]);
      if (inserted.length === 0) throw new ApiError('sign_in_failed', 'The email address or the password is wrong.');
      if (counted) this.attempts.forgetWith(change, counted);
      const actor = {
        type: 'user' as const,
        userId: user.id,
        name: user.name,
        sessionId: id,
        rights: rightsOfPerson(this.scopes, user.role, []),
      };
      this.audit.record(change, {
        actor,
        action: 'session.started',
        subject: { type: 'session', id, name: user.name },
      });
    });
    return value;
  }

  /** When a restore was noticed that is not settled; null: there is none. */
  async unsettledRestoreAt(): Promise<string | null> {
    const [log] = await this.db.query<{ restored_before: Date | null }>(SELECT_RESTORED);
    return log?.restored_before?.toISOString() ?? null;
  }

  /** The person signed in by this cookie; null when there is none. */
  async actorBy(value: string): Promise<UserActor | null> {
    const [row] = await this.db.authoritative<SessionRow>(
      'session-by-hash',
      `SELECT ${LOG_FILE} AS file, s.id, s.user_id, s.seen_at, u.name, u.role, (
         SELECT json_agg(json_build_array(m.project_id, m.role)) FROM members m
         JOIN projects p ON p.id = m.project_id AND p.closed_at IS NULL WHERE m.user_id = u.id
       ) AS memberships
       FROM sessions s JOIN users u ON u.id = s.user_id
       WHERE s.hash = $1 AND s.expires_at > now() AND u.disabled_at IS NULL
         AND (SELECT restored_before IS NULL OR s.created_at >= restored_before FROM invalidation_log)`,
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
    await this.#endOwn(actor, { only: actor.sessionId });
  }

  /** The person's sessions, newest first. */
  async listOwn(actor: UserActor): Promise<OwnSession[]> {
    const found = await this.db.query<OwnSessionRow>(
      `SELECT id, created_at, seen_at, expires_at, ip, user_agent FROM sessions
       WHERE user_id = $1 AND expires_at > now() ORDER BY created_at DESC, id DESC LIMIT 100`,
      [actor.userId],
    );
    return found.map((row) => ({
      id: row.id,
      current: row.id === actor.sessionId,
      createdAt: row.created_at.toISOString(),
      seenAt: row.seen_at.toISOString(),
      expiresAt: row.expires_at.toISOString(),
      ip: row.ip,
      userAgent: row.user_agent,
    }));
  }

  /** Ends all sessions of the person, including this one. */
  async endAll(actor: UserActor): Promise<void> {
    await this.#endOwn(actor, 'all');
  }

  /** @throws ApiError `not_found` when it is not one of the person's own */
  async endOwn(actor: UserActor, id: string): Promise<void> {
    if ((await this.#endOwn(actor, { only: id })) === 0) throw notFound('sign-in');
  }

  /** The session cookie with this value, as a `Set-Cookie` header. */
  cookie(value: string, maxAge: number): string {
    return writeCookie(this.config, { name: cookieName(this.config), value, path: '/', sameSite: 'strict', maxAge });
  }

  #endOwn(actor: UserActor, which: Parameters<typeof endSessionsOf>[4]): Promise<number> {
    const person = { id: actor.userId, name: actor.name };
    return this.db.change((change) => endSessionsOf(change, this.audit, actor, person, which));
  }
}
