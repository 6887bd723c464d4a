import { type Letter, passwordEmailContext } from '@latchkey/contracts';
import { type EncryptionKey, encryptFor, newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { SYSTEM } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, Database } from '../database/index.js';
import { atMultiplesOf, conflict, RatesService, requestContext } from '../http/index.js';
import { newResetCode, storeResetCode } from './reset-codes.js';

type PasswordEmailKind = Letter['kind'];

/** How long the code in an email is valid. */
const CODE_SECONDS: Record<PasswordEmailKind, number> = { reset: 3_600, invitation: 72 * 3_600 };
/** Most valid codes of one person; at this number no email is added. */
const LIVE_CODES_MAX = 5;
/** Responses are sent at whole multiples of this, so that their time does not reveal who exists. */
const RESPONSE_STEP_MS = 250;
/** After so long an unsent email is dropped. */
const RETENTION = '24 hours';
/** A mailer calls every second; after this silence there is none. */
const MAILER_SILENT_AFTER = '2 minutes';
/** Longer than a mailer takes to send what it took. */
const LEASE_SECONDS = 120;

interface DueRow {
  id: string;
  user_id: string;
  kind: PasswordEmailKind;
  email: string;
  name: string;
  attempts: number;
}

/** Emails by which people set a password: queued here, taken and sent by jobs, which alone has a code in plain text. */
@Injectable()
export class PasswordEmailsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly rates: RatesService,
    @Inject(CONFIG) private readonly config: Pick<TokenServiceConfig, 'JOBS_SEALING_PUBLIC_KEY'>,
  ) {}

  /** Whether a mailer is running. */
  async isMailerActive(): Promise<boolean> {
    const [row] = await this.db.query<{ active: boolean }>(
      `SELECT seen_at > now() - interval '${MAILER_SILENT_AFTER}' AS active FROM letter_carrier`,
    );
    return row!.active;
  }

  /**
   * Queues an email to the person with this address, if there is one. The response and its time are the same when there
   * is none.
   * @throws ApiError `rate_limited` by the caller's IP address and the email address; `conflict` where no mailer runs
   */
  async requestReset(email: string): Promise<void> {
    const ip = requestContext.getStore()?.ip ?? '';
    await this.rates.count('forgot-password', ip, { max: 20, windowSeconds: 900 });
    await this.rates.count('forgot-password-for', `${ip} ${email}`, { max: 5, windowSeconds: 900 });
    if (!(await this.isMailerActive()))
      throw conflict('This installation sends no email. Ask an administrator for a code, and set a password with it.');
    await atMultiplesOf(RESPONSE_STEP_MS, () => this.#queue(email));
  }

  /** Queues an invitation to choose a password, in the transaction that creates the person. */
  invite(change: Change, userId: string): void {
    change.write([INSERT_PASSWORD_EMAIL.replace('$WHO', 'id = $3'), [newId(), 'invitation', userId]]);
  }

  /**
   * Returns emails that are due, each with a new code, encrypted for jobs; only its hash is stored. Safe to run
   * concurrently; an email that is not finished afterwards is returned again, with another code.
   * @param keyIds the keys that the caller can decrypt with
   * @throws ApiError `conflict` when the configured key is not among these, or there is none; nothing has changed then
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
      const emails: Letter[] = [];
      for (const { id, user_id: userId, kind, email, name, attempts } of due) {
        const code = newResetCode();
        const expiresAt = storeResetCode(change, userId, code, CODE_SECONDS[kind]);
        const passwordEmail = { id, kind, email, name, expiresAt: expiresAt.toISOString() };
        emails.push({ ...passwordEmail, encryptedCode: encryptFor(key, code, passwordEmailContext(passwordEmail)) });
        if (attempts > 1) continue;
        const subject = { type: 'user' as const, id: userId, name };
        const details = { password: kind === 'reset' ? 'reset begun' : 'invited', by: 'e-mail' };
        this.audit.record(change, { actor: SYSTEM, action: 'user.updated', subject, details });
      }
      return emails;
    });
  }

  /** Removes an email that was sent or cannot be sent. @returns whether it existed */
  async finish(id: string): Promise<boolean> {
    const gone = await this.db.query('DELETE FROM letters WHERE id = $1 RETURNING id', [id]);
    return gone.length > 0;
  }

  #keyFor(keyIds: readonly string[]): EncryptionKey {
    const key = this.config.JOBS_SEALING_PUBLIC_KEY;
    if (!key) throw conflict('JOBS_SEALING_PUBLIC_KEY is not set at the token-service, so codes cannot be encrypted.');
    if (!keyIds.includes(key.id))
      throw conflict(
        'The caller does not have the key that codes are encrypted for: it is older than 0.2, or its JOBS_SEALING_KEY does not belong to JOBS_SEALING_PUBLIC_KEY.',
      );
    return key;
  }

  async #queue(email: string): Promise<void> {
    await this.db.query(INSERT_PASSWORD_EMAIL.replace('$WHO', 'email = $3'), [newId(), 'reset', email]);
  }
}

/** At most one is queued per person, and none for a person with too many valid codes. */
const INSERT_PASSWORD_EMAIL = `INSERT INTO letters (id, user_id, kind, created_at, next_at)
  SELECT $1, u.id, $2, now(), now() FROM users u WHERE u.$WHO AND u.disabled_at IS NULL
    AND (SELECT count(*) FROM password_resets r WHERE r.user_id = u.id AND r.expires_at > now()) < ${LIVE_CODES_MAX}
  ON CONFLICT (user_id) DO NOTHING`;
