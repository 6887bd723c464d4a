import { type Letter, passwordEmailContext } from '@latchkey/contracts';
import { type EncryptionKey, encryptFor, newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { SYSTEM } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, Database } from '../database/index.js';
import { atMultiplesOf, conflict, RatesService, requestContext } from '../http/index.js';
import { storeResetCode, newResetCode } from './reset-codes.js';

type PasswordEmailKind = Letter['kind'];

/** How long the code in a letter stays good. */
const CODE_SECONDS: Record<PasswordEmailKind, number> = { reset: 3_600, invitation: 72 * 3_600 };
/** Codes of one person that are good at once; no further letter is written while there are so many. */
const LIVE_CODES_MAX = 5;
/** Answers come at whole multiples of this, so that their time does not tell who exists. */
const RESPONSE_STEP_MS = 250;
/** A letter that could not be sent for so long is dropped. */
const RETENTION = '24 hours';
/** Whoever can send letters asks for them every second; after this silence nobody is there to send any. */
const MAILER_SILENT_AFTER = '2 minutes';
/** Longer than a carrier takes to send what it took. */
const LEASE_SECONDS = 120;

interface DueRow {
  id: string;
  user_id: string;
  kind: PasswordEmailKind;
  email: string;
  name: string;
  attempts: number;
}

/** Letters by which people set a password: asked for here, taken and sent by jobs, which alone holds a code in clear. */
@Injectable()
export class PasswordEmailsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly rates: RatesService,
    @Inject(CONFIG) private readonly config: Pick<TokenServiceConfig, 'JOBS_SEALING_PUBLIC_KEY'>,
  ) {}

  /** Whether somebody is there who sends letters. */
  async isMailerActive(): Promise<boolean> {
    const [row] = await this.db.query<{ carried: boolean }>(
      `SELECT seen_at > now() - interval '${MAILER_SILENT_AFTER}' AS carried FROM letter_carrier`,
    );
    return row!.carried;
  }

  /**
   * Has a letter sent to the person with this e-mail address, if there is one. The answer, and its time, is the same
   * when there is none.
   * @throws ApiError `rate_limited` by the caller's address and what was typed; `conflict` where no letters are sent
   */
  async askForReset(email: string): Promise<void> {
    const ip = requestContext.getStore()?.ip ?? '';
    await this.rates.count('forgot-password', ip, { max: 20, windowSeconds: 900 });
    await this.rates.count('forgot-password-for', `${ip} ${email}`, { max: 5, windowSeconds: 900 });
    if (!(await this.isMailerActive()))
      throw conflict('No e-mail is sent from here. Ask an administrator for a code, and set a password with it.');
    await atMultiplesOf(RESPONSE_STEP_MS, () => this.#write(email));
  }

  /** Has a new person invited to choose a password, in the transaction that makes them. */
  invite(change: Change, userId: string): void {
    change.write([INSERT_PASSWORD_EMAIL.replace('$WHO', 'id = $3'), [newId(), 'invitation', userId]]);
  }

  /**
   * Hands out letters that are due, each with a code made at this moment, encrypted to jobs; only its hash is kept. Safe
   * to run side by side; a letter of which nothing is heard afterwards is handed out again, with another code.
   * @param keyIds the keys that the caller can decrypt with
   * @throws ApiError `conflict` when the key here is none of these, or there is none: then nothing has changed
   */
  async take(limit: number, keyIds: readonly string[]): Promise<Letter[]> {
    const key = this.#keyFor(keyIds);
    return this.db.change(async (change) => {
      change.write([`UPDATE letter_carrier SET seen_at = now() WHERE seen_at < now() - interval '10 seconds'`]);
      change.write([`DELETE FROM letters WHERE created_at < now() - interval '${RETENTION}'`]);
      const due = await change.read<DueRow>([
        `WITH due AS (SELECT id FROM letters WHERE next_at <= now() ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED)
         UPDATE letters l SET attempts = l.attempts + 1,
           next_at = now() + greatest($2, 30 * 2 ^ least(l.attempts, 10)) * interval '1 second'
         FROM due, users u WHERE l.id = due.id AND u.id = l.user_id AND u.disabled_at IS NULL
         RETURNING l.id, l.user_id, l.kind, u.email, u.name, l.attempts`,
        [limit, LEASE_SECONDS],
      ]);
      const letters: Letter[] = [];
      for (const { id, user_id: userId, kind, email, name, attempts } of due) {
        const code = newResetCode();
        const expiresAt = storeResetCode(change, userId, code, CODE_SECONDS[kind]);
        const letter = { id, kind, email, name, expiresAt: expiresAt.toISOString() };
        letters.push({ ...letter, encryptedCode: encryptFor(key, code, passwordEmailContext(letter)) });
        if (attempts > 1) continue;
        const subject = { type: 'user' as const, id: userId, name };
        const details = { password: kind === 'reset' ? 'reset begun' : 'invited', by: 'e-mail' };
        this.audit.record(change, { actor: SYSTEM, action: 'user.updated', subject, details });
      }
      return letters;
    });
  }

  /** A letter was sent, or can never be. @returns whether it was known */
  async finish(id: string): Promise<boolean> {
    const gone = await this.db.query('DELETE FROM letters WHERE id = $1 RETURNING id', [id]);
    return gone.length > 0;
  }

  #keyFor(keyIds: readonly string[]): EncryptionKey {
    const key = this.config.JOBS_SEALING_PUBLIC_KEY;
    if (!key)
      throw conflict('JOBS_SEALING_PUBLIC_KEY is not set at the token-service: no code leaves without encryption.');
    if (!keyIds.includes(key.id))
      throw conflict(
        'The caller names no key to which codes are encrypted here: it is older than 0.2, or its JOBS_SEALING_KEY does not belong to JOBS_SEALING_PUBLIC_KEY.',
      );
    return key;
  }

  async #write(email: string): Promise<void> {
    await this.db.query(INSERT_PASSWORD_EMAIL.replace('$WHO', 'email = $3'), [newId(), 'reset', email]);
  }
}

/** One waits at most; and none is added for whoever has enough good codes. */
const INSERT_PASSWORD_EMAIL = `INSERT INTO letters (id, user_id, kind, created_at, next_at)
  SELECT $1, u.id, $2, now(), now() FROM users u WHERE u.$WHO AND u.disabled_at IS NULL
    AND (SELECT count(*) FROM password_resets r WHERE r.user_id = u.id AND r.expires_at > now()) < ${LIVE_CODES_MAX}
  ON CONFLICT (user_id) DO NOTHING`;
