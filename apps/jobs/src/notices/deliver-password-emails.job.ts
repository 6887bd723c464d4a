import { passwordEmailContext, type Letter as TakenEmail } from '@latchkey/contracts';
import { type DecryptionKey, decryptWith, unmetPrecondition } from '@latchkey/runtime';
import { type Job, type JobContext, NOTHING } from '../job.js';
import { sendMail } from './mail.js';
import { passwordEmail } from './notice-email.js';

/** Few, because a mail server can take seconds, and what is taken here is due again after two minutes. */
const EMAILS_PER_STEP = 3;

/**
 * The token-service generates the code of an email when it is taken, encrypted to a key that only jobs has; it is in
 * clear only here, until the mail server has it. An email that was not reported as finished is taken again, with another
 * code.
 */
export const deliverPasswordEmails: Job = {
  name: 'deliver-letters',
  queue: 'notices',
  everyMs: 1_000,
  description: 'Invitations and links to reset a password are sent by email.',
  async step({ config, maintenance, metrics, logger }) {
    const keys = config.JOBS_SEALING_KEY;
    if (!config.SMTP_URL || !keys) return NOTHING;
    const taken = await maintenance
      .takeLetters({ limit: EMAILS_PER_STEP, keyIds: keys.map(({ id }) => id) })
      .catch((error: unknown) => noEmails(error, logger));
    if (!taken) return NOTHING;
    const { letters: emails } = taken;
    for (const email of emails) {
      const code = codeOf(email, keys);
      if (code === null) {
        logger.error({ email: email.id }, 'decrypting the code of a password email failed: it was changed in transit');
        metrics.notices.inc({ channel: 'email', outcome: 'due' });
        continue;
      }
      const outcome = await sendMail(config, email.id, email, passwordEmail({ ...email, code }, config.PUBLIC_URL));
      if (outcome.ok || outcome.gone) await maintenance.finishLetter({ id: email.id });
      if (!outcome.ok) logger.warn({ email: email.id, reason: outcome.reason }, 'sending a password email failed');
      metrics.notices.inc({ channel: 'email', outcome: outcome.ok ? 'sent' : outcome.gone ? 'dead' : 'due' });
    }
    return { done: emails.length, more: emails.length === EMAILS_PER_STEP };
  },
};

const LOG_EVERY_MS = 60_000;
let loggedAt = Number.NEGATIVE_INFINITY;

/** It fails every second until a setting is changed: logged once a minute. @throws any other failure */
function noEmails(error: unknown, logger: JobContext['logger']): null {
  const reason = unmetPrecondition(error);
  if (reason === undefined) throw error;
  if (performance.now() - loggedAt > LOG_EVERY_MS) {
    loggedAt = performance.now();
    logger.error({ reason }, 'no password emails are sent: the token-service issues no codes');
  }
  return null;
}

function codeOf(email: TakenEmail, keys: readonly DecryptionKey[]): string | null {
  for (const key of keys) {
    const code = decryptWith(key, email.encryptedCode, passwordEmailContext(email));
    if (code !== null) return code;
  }
  return null;
}
