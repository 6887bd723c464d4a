import type { changePasswordBody, setPasswordBody } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { AuditService } from '../audit/index.js';
import { type Actor, SYSTEM, type SystemActor, type UserActor } from '../authorization/index.js';
import { type Change, Database } from '../database/index.js';
import { ApiError, notFound } from '../http/index.js';
import { LedgerService } from '../ledger/index.js';
import { LocksService } from '../verification/index.js';
import { AttemptsService } from './attempts.service.js';
import { endSessionsOf } from './end-sessions.js';
import { PeopleService } from './people.service.js';
import { mustAdminister } from './person.rules.js';
import {
  dropResetCodes,
  isResetCode,
  newResetCode,
  RESET_SECONDS,
  storeResetCode,
  useResetCode,
} from './reset-codes.js';
import { SecondFactorService } from './second-factor.service.js';

interface Person {
  id: string;
  name: string;
}

const codeRejected = () => new ApiError('sign_in_failed', 'The code is wrong, was used before, or has expired.');

/** Passwords after the first: changed by their owner, or set with a code from an administrator or an email. */
@Injectable()
export class OwnPasswordsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly people: PeopleService,
    private readonly attempts: AttemptsService,
    private readonly factors: SecondFactorService,
    private readonly ledger: LedgerService,
  ) {}

  /** Changes the caller's password; their other sessions end. */
  async change(actor: UserActor, body: z.output<typeof changePasswordBody>): Promise<void> {
    await this.people.mustBeOwnPassword(actor.userId, body.currentPassword);
    const passwordHash = await this.people.hashOf(body.newPassword);
    await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { users: [actor.userId] } });
      this.#set(change, now, { id: actor.userId, name: now.name }, passwordHash, 'changed');
      await endSessionsOf(change, this.audit, now, { id: actor.userId, name: now.name }, { except: actor.sessionId });
    });
    await this.ledger.written();
  }

  /** A one-time code for a person, valid for an hour; replaces earlier ones. */
  async makeReset(actor: Actor, userId: string): Promise<{ code: string; expiresAt: string }> {
    const code = newResetCode();
    const expiresAt = await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { users: [userId] } });
      mustAdminister(now);
      const [person] = await change.read<{ name: string }>(['SELECT name FROM users WHERE id = $1', [userId]]);
      if (!person) throw notFound('person');
      dropResetCodes(change, userId);
      this.#record(change, now, { id: userId, name: person.name }, 'reset begun');
      return storeResetCode(change, userId, code, RESET_SECONDS);
    });
    return { code, expiresAt: expiresAt.toISOString() };
  }

  /**
   * Sets a password with such a code; all sessions of the person end. A person with a second factor must present it too,
   * and it stays in force.
   * @throws ApiError `sign_in_failed`, the same for every cause but the second factor; `rate_limited`
   */
  async setWithCode(body: z.output<typeof setPasswordBody>): Promise<void> {
    const counted = await this.attempts.count(`reset ${body.email}`);
    const passwordHash = await this.people.hashOf(body.newPassword);
    const guesses = await this.#countGuess(body);
    const set = this.db.change(async (change) => {
      await this.db.mustBeAccepted(change);
      const [person] = await change.read<{ id: string; name: string }>([
        'SELECT id, name FROM users WHERE email = $1 AND disabled_at IS NULL FOR NO KEY UPDATE',
        [body.email],
      ]);
      if (!person) throw codeRejected();
      if (!(await useResetCode(change, person.id, body.code))) throw codeRejected();
      await this.factors.mustPassIn(change, person.id, body.secondFactor, 'secondFactor');
      this.#set(change, SYSTEM, person, passwordHash, 'set with a code');
      await endSessionsOf(change, this.audit, SYSTEM, person, 'all');
      this.attempts.forgetWith(change, counted);
      if (guesses) this.attempts.forgetWith(change, guesses);
    });
    await set.catch(async (error: unknown) => {
      // The code was right: a missing second factor does not count as a failure.
      if (error instanceof ApiError && error.code === 'second_factor_required') await this.attempts.forget(counted);
      throw error;
    });
    await this.ledger.written();
  }

  /** Counts a guess at the second factor as at sign-in, once the code is right. */
  async #countGuess({ email, code, secondFactor }: z.output<typeof setPasswordBody>): Promise<Buffer | null> {
    if (secondFactor === undefined) return null;
    const [person] = await this.db.query<{ id: string }>(
      'SELECT id FROM users WHERE email = $1 AND disabled_at IS NULL',
      [email],
    );
    if (!person || !(await isResetCode(this.db, person.id, code))) throw codeRejected();
    return this.attempts.countFromAnywhere(`code ${person.id}`);
  }

  #set(change: Change, actor: Actor | SystemActor, person: Person, passwordHash: string, how: string): void {
    change.write(['UPDATE users SET password_hash = $2 WHERE id = $1', [person.id, passwordHash]]);
    this.#record(change, actor, person, how);
  }

  #record(change: Change, actor: Actor | SystemActor, { id, name }: Person, password: string): void {
    this.audit.record(change, {
      actor,
      action: 'user.updated',
      subject: { type: 'user', id, name },
      details: { password },
    });
  }
}
