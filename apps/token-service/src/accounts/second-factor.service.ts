import { randomBytes } from 'node:crypto';
import type { Clock } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { type Actor, SYSTEM, type SystemActor, type UserActor } from '../authorization/index.js';
import { CLOCK, CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, Database } from '../database/index.js';
import { ApiError, conflict, notFound } from '../http/index.js';
import { LedgerService } from '../ledger/index.js';
import { LocksService, PeppersService } from '../verification/index.js';
import { AttemptsService } from './attempts.service.js';
import { decrypt, encrypt } from './encrypted.js';
import { endSessionsOf } from './end-sessions.js';
import { PeopleService } from './people.service.js';
import { mustAdminister } from './person.rules.js';
import { dropRecoveryCodes, isRecoveryCode, makeRecoveryCodes, useRecoveryCode } from './recovery-codes.js';
import { base32, otpauthUri, stepOf } from './totp.js';

const PURPOSE = 'second factor';
const SECRET_BYTES = 20;

interface FactorRow {
  sealed_secret: Buffer;
  confirmed_at: Date | null;
  last_step: string;
  /** Null: written before there were ids. */
  pepper_id: number | null;
}

/** Second factors (TOTP, RFC 6238): required after the password, each code accepted once. */
@Injectable()
export class SecondFactorService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly people: PeopleService,
    private readonly attempts: AttemptsService,
    private readonly peppers: PeppersService,
    private readonly ledger: LedgerService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  /** Whether the person has a second factor, and how many recovery codes are left. */
  async stateOf(userId: string): Promise<{ enabled: boolean; recoveryCodesLeft: number }> {
    const [row] = await this.db.query<{ enabled: boolean; left: number }>(
      `SELECT EXISTS (SELECT 1 FROM second_factors WHERE user_id = $1 AND confirmed_at IS NOT NULL) AS enabled,
         (SELECT count(*)::int FROM recovery_codes c WHERE user_id = $1 AND NOT EXISTS (
           SELECT 1 FROM peppers p WHERE p.id = c.pepper_id AND p.given_up_at IS NOT NULL)) AS left`,
      [userId],
    );
    return { enabled: row!.enabled, recoveryCodesLeft: row!.left };
  }

  /** Creates a secret that takes effect once `confirm` has shown that the app has it. */
  async start(actor: UserActor, password: string): Promise<{ secret: string; uri: string }> {
    await this.people.mustBeOwnPassword(actor.userId, password);
    const secret = randomBytes(SECRET_BYTES);
    const user = await this.people.byId(actor.userId);
    await this.db.change(async (change) => {
      await this.locks.lock(change, actor, { change: { users: [actor.userId] } });
      const before = await this.#find(change, actor.userId);
      if (before?.confirmed_at) throw conflict('You have a second factor already. Remove it first.');
      change.write([
        `INSERT INTO second_factors (user_id, sealed_secret, pepper_id) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET sealed_secret = $2, pepper_id = $3, last_step = 0`,
        [actor.userId, encrypt(this.config.TOKEN_PEPPERS, PURPOSE, secret), this.peppers.currentId],
      ]);
    });
    const issuer = new URL(this.config.PUBLIC_URL).host;
    return { secret: base32(secret), uri: otpauthUri(secret, issuer, user?.email ?? actor.name) };
  }

  /**
   * Enables the factor; the person's other sessions end.
   * @returns one-time recovery codes; they are not shown again
   */
  confirm(actor: UserActor, code: string): Promise<string[]> {
    return this.#changeOwn(actor, async (change, factor) => {
      if (!factor) throw conflict('Start first: POST /v1/session/totp.');
      if (factor.confirmed_at) throw conflict('Your second factor is confirmed already.');
      await this.#mustAccept(change, actor.userId, factor, code);
      change.write(['UPDATE second_factors SET confirmed_at = $2 WHERE user_id = $1', [actor.userId, new Date()]]);
      await this.#record(change, actor, actor.userId, 'added');
      await endSessionsOf(
        change,
        this.audit,
        actor,
        { id: actor.userId, name: actor.name },
        { except: actor.sessionId },
      );
      return this.#newRecoveryCodes(change, actor.userId);
    });
  }

  /** Ten new recovery codes, which replace the old ones. */
  async makeRecoveryCodes(actor: UserActor, password: string, code: string): Promise<string[]> {
    await this.people.mustBeOwnPassword(actor.userId, password);
    return this.#withFactor(actor, code, async (change) => {
      await this.#record(change, actor, actor.userId, 'recovery codes made');
      return this.#newRecoveryCodes(change, actor.userId);
    });
  }

  async remove(actor: UserActor, password: string, code: string): Promise<void> {
    await this.people.mustBeOwnPassword(actor.userId, password);
    await this.#withFactor(actor, code, async (change) => {
      change.write(['DELETE FROM second_factors WHERE user_id = $1', [actor.userId]]);
      dropRecoveryCodes(change, actor.userId);
      await this.#record(change, actor, actor.userId, 'removed');
    });
  }

  /** Removes a person's second factor, for administrators. Safe to repeat. */
  async reset(actor: Actor, userId: string): Promise<void> {
    await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { users: [userId] } });
      mustAdminister(now);
      const [person] = await change.read(['SELECT 1 FROM users WHERE id = $1', [userId]]);
      if (!person) throw notFound('person');
      const gone = await change.read(['DELETE FROM second_factors WHERE user_id = $1 RETURNING user_id', [userId]]);
      dropRecoveryCodes(change, userId);
      if (gone.length) await this.#record(change, now, userId, 'reset');
    });
    await this.ledger.written();
  }

  /**
   * Checks the second factor at sign-in, after the password. A recovery code is accepted in place of the app's code.
   * @throws ApiError `second_factor_required` without a code where one is needed, `sign_in_failed` for a wrong or used one
   */
  mustPass(userId: string, code: string | undefined): Promise<void> {
    return this.db.change((change) => this.mustPassIn(change, userId, code, 'code'));
  }

  /**
   * As `mustPass`, in the transaction of a change that the factor guards.
   * @param field what the request calls the code
   */
  async mustPassIn(
    change: Change,
    userId: string,
    code: string | undefined,
    field: 'code' | 'secondFactor',
  ): Promise<void> {
    const factor = await this.#find(change, userId);
    if (!factor?.confirmed_at) return;
    if (code === undefined)
      throw new ApiError(
        'second_factor_required',
        `Send the six digits of your authenticator app, or a recovery code, as \`${field}\` too.`,
      );
    await this.#mustAcceptEither(change, SYSTEM, userId, factor, code);
  }

  /** Runs a change that requires a code of the factor, with the same limit on guesses as at sign-in. */
  async #withFactor<T>(actor: UserActor, code: string, work: (change: Change) => T | Promise<T>): Promise<T> {
    const counted = await this.attempts.countFromAnywhere(`code ${actor.userId}`);
    return this.#changeOwn(actor, async (change, factor) => {
      if (!factor?.confirmed_at) throw conflict('You have no second factor.');
      await this.#mustAcceptEither(change, actor, actor.userId, factor, code);
      this.attempts.forgetWith(change, counted);
      return work(change);
    });
  }

  async #changeOwn<T>(
    actor: UserActor,
    work: (change: Change, factor: FactorRow | undefined) => Promise<T>,
  ): Promise<T> {
    const done = await this.db.change(async (change) => {
      await this.locks.lock(change, actor, { change: { users: [actor.userId] } });
      return work(change, await this.#find(change, actor.userId));
    });
    await this.ledger.written();
    return done;
  }

  async #find(change: Change, userId: string): Promise<FactorRow | undefined> {
    const [row] = await change.read<FactorRow>([
      'SELECT sealed_secret, confirmed_at, last_step, pepper_id FROM second_factors WHERE user_id = $1 FOR UPDATE',
      [userId],
    ]);
    return row;
  }

  /** Accepts a code of the app, or consumes a recovery code. */
  async #mustAcceptEither(change: Change, actor: Actor | SystemActor, userId: string, factor: FactorRow, code: string) {
    if (!isRecoveryCode(code)) return this.#mustAccept(change, userId, factor, code);
    const left = await useRecoveryCode(change, this.config.TOKEN_PEPPERS, userId, code);
    if (left === null) {
      await this.peppers.mustLackNone(change);
      throw new ApiError('sign_in_failed', 'The recovery code is wrong or was used before.');
    }
    await this.#record(change, actor, userId, 'recovery code used', { recoveryCodesLeft: left });
  }

  async #mustAccept(change: Change, userId: string, factor: FactorRow, code: string): Promise<void> {
    const secret = decrypt(this.config.TOKEN_PEPPERS, PURPOSE, factor.sealed_secret);
    if (!secret) {
      await this.peppers.mustLackNone(change);
      throw new ApiError(
        'internal',
        'The second factor was encrypted under a pepper that has been given up. An administrator can reset it.',
      );
    }
    const step = stepOf(secret, code, this.clock.wallMs(), Number(factor.last_step));
    if (step === null)
      throw new ApiError('sign_in_failed', 'The one-time code is wrong or was used before. Wait for the next.');
    change.write(['UPDATE second_factors SET last_step = $2 WHERE user_id = $1', [userId, step]]);
    if (factor.pepper_id === this.peppers.currentId || !this.peppers.mayMove) return;
    change.write([
      'UPDATE second_factors SET sealed_secret = $2, pepper_id = $3 WHERE user_id = $1',
      [userId, encrypt(this.config.TOKEN_PEPPERS, PURPOSE, secret), this.peppers.currentId],
    ]);
  }

  #newRecoveryCodes(change: Change, userId: string): string[] {
    const under = { peppers: this.config.TOKEN_PEPPERS, pepperId: this.peppers.currentId };
    return makeRecoveryCodes(change, under, userId);
  }

  async #record(
    change: Change,
    actor: Actor | SystemActor,
    userId: string,
    secondFactor: string,
    more: Record<string, unknown> = {},
  ): Promise<void> {
    const [person] = await change.read<{ name: string }>(['SELECT name FROM users WHERE id = $1', [userId]]);
    const subject = { type: 'user' as const, id: userId, name: person?.name ?? '' };
    this.audit.record(change, { actor, action: 'user.updated', subject, details: { secondFactor, ...more } });
  }
}
