import { hash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { type Change, Database } from '../database/index.js';
import { ApiError, requestContext } from '../http/index.js';

const FAILURES_MAX = 10;
const FAILURES_WINDOW_SECONDS = 15 * 60;

/** Limits guessing: after ten failures in 15 minutes for one subject, 429. */
@Injectable()
export class AttemptsService {
  constructor(private readonly db: Database) {}

  /**
   * Counts an attempt before it is checked, so that concurrent attempts are each counted.
   * @param what is guessed, such as an email address; counted per caller's IP address
   * @returns the argument for `forget` when the attempt succeeds
   * @throws ApiError `rate_limited` with `Retry-After` after the tenth
   */
  async count(what: string): Promise<Buffer> {
    return this.#count(`${what}\n${requestContext.getStore()?.ip ?? ''}`);
  }

  /** As `count`, for all IP addresses together: for short secrets such as one-time codes. */
  async countFromAnywhere(what: string): Promise<Buffer> {
    return this.#count(what);
  }

  async #count(text: string): Promise<Buffer> {
    const subject = hash('sha256', text, 'buffer');
    const [row] = await this.db.query<{ count: number; seconds_left: number }>(
      `INSERT INTO sign_in_failures AS f (subject, count, since) VALUES ($1, 1, now())
       ON CONFLICT (subject) DO UPDATE SET
         count = CASE WHEN f.since < now() - make_interval(secs => $2) THEN 1 ELSE least(f.count + 1, 1000000) END,
         since = CASE WHEN f.since < now() - make_interval(secs => $2) THEN now() ELSE f.since END
       RETURNING count, ceil($2 - extract(epoch FROM now() - since))::int AS seconds_left`,
      [subject, FAILURES_WINDOW_SECONDS],
    );
    if (row!.count <= FAILURES_MAX) return subject;
    const seconds = Math.max(1, row!.seconds_left);
    throw new ApiError('rate_limited', `Too many failed sign-ins. Try again in ${Math.ceil(seconds / 60)} minutes.`, {
      headers: { 'retry-after': String(seconds) },
    });
  }

  /** The attempt succeeded: earlier failures no longer count. */
  async forget(subject: Buffer): Promise<void> {
    await this.db.query(...deleteFailures(subject));
  }

  /** The same in the transaction of the change that the attempt was for. */
  forgetWith(change: Change, subject: Buffer): void {
    change.write(deleteFailures(subject));
  }
}

const deleteFailures = (subject: Buffer): [string, unknown[]] => [
  'DELETE FROM sign_in_failures WHERE subject = $1',
  [subject],
];
