import type { changePasswordBody, setPasswordBody } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { AuditService } from '../audit/index.js';
import { type Actor, SYSTEM, type SystemActor, type UserActor } from '../authorization/index.js';
import { type Change, Database } from '../database/index.js';
import { ApiError, notFound } from '../http/index.js';
import { LocksService } from '../verification/index.js';
import { AttemptsService } from './attempts.service.js';
import { endSessionsOf } from './end-sessions.js';
import { PeopleService } from './people.service.js';
import { mustAdminister } from './person.rules.js';
import { dropResetCodes, isResetCode, storeResetCode, newResetCode, useResetCode } from './reset-codes.js';
import { SecondFactorService } from './second-factor.service.js';

/** How long a code by which a person sets a new password stays good. */
const RESET_SECONDS = 3_600;

interface Person {
  id: string;
  name: string;
}

const refused = () => new ApiError('sign_in_failed', 'The code is wrong, has been used, or is too old.');

/** Passwords after the first: changed by their owner, or set with a code from an administrator or a letter. */
@Injectable()
export class OwnPasswordsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly people: PeopleService,
    private readonly attempts: AttemptsService,
    private readonly factors: SecondFactorService,
  ) {}

  /** Changes one's own password; every other sign-in of the person ends. */
  async change(actor: UserActor, body: z.output<typeof changePasswordBody>): Promise<void> {
    await this.people.mustBeOwnPassword(actor.userId, body.currentPassword);
    const passwordHash = await this.people.hashOf(body.newPassword);
    await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { users: [actor.userId] } });
      this.#set(change, now, { id: actor.userId, name: now.name }, passwordHash, 'changed');
      await endSessionsOf(change, this.audit, now, { id: actor.userId, name: now.name }, { except: actor.sessionId });
    });
  }

  /** A code for a person, good for an hour and once; an earlier one is void. */
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
   * Sets a password with such a code; every sign-in of the person ends. Whoever has a second factor shows it here too,
   * and keeps it. The same refusal for every cause that is not about the factor.
   */
  async setWithCode(body: z.output<typeof setPasswordBody>): Promise<void> {
    const counted = await this.attempts.count(`reset ${body.email}`);
    const passwordHash = await this.people.hashOf(body.newPassword);
    const guesses = await this.#countGuess(body);
    const set = this.db.change(async (change) => {
      const [person] = await change.read<{ id: string; name: string }>([
        'SELECT id, name FROM users WHERE email = $1 AND disabled_at IS NULL FOR NO KEY UPDATE',
        [body.email],
      ]);
      if (!person) throw refused();
      if (!(await useResetCode(change, person.id, body.code))) throw refused();
      await this.factors.mustPassIn(change, person.id, body.secondFactor, 'secondFactor');
      this.#set(change, SYSTEM, person, passwordHash, 'set with a code');
      await endSessionsOf(change, this.audit, SYSTEM, person, 'all');
      this.attempts.forgetWith(change, counted);
      if (guesses) this.attempts.forgetWith(change, guesses);
    });
    await set.catch(async (error: unknown) => {
      // The code was right: asking for the second factor is no failure.
      if (error instanceof ApiError && error.code === 'second_factor_required') await this.attempts.forget(counted);
      throw error;
    });
  }

  /** Guesses at a second factor count as at sign-in, once the first proof, the code, is right. */
  async #countGuess({ email, code, secondFactor }: z.output<typeof setPasswordBody>): Promise<Buffer | null> {
    if (secondFactor === undefined) return null;
    const [person] = await this.db.query<{ id: string }>(
      'SELECT id FROM users WHERE email = $1 AND disabled_at IS NULL',
      [email],
    );
    if (!person || !(await isResetCode(this.db, person.id, code))) throw refused();
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
