import { type Letter, passwordEmailContext } from '@latchkey/contracts';
import { type DecryptionKey, decryptWith, unmetPrecondition } from '@latchkey/runtime';
import { type Job, type JobContext, NOTHING } from '../job.js';
import { sendMail } from './mail.js';
import { passwordEmail } from './notice-email.js';

/** A mail server takes seconds at worst; what is taken here is due again after two minutes. */
const LETTERS = 3;

/**
 * The code in a letter is made by the token-service when the letter is taken, comes encrypted to a key that jobs alone
 * holds, and is in clear here until the mail server has it, nowhere else. A letter that was not reported as finished is
 * taken again, with another code.
 */
export const deliverPasswordEmails: Job = {
  name: 'deliver-letters',
  queue: 'notices',
  everyMs: 1_000,
  description: 'People who asked for a new password, or were invited, are sent a link by e-mail.',
  async step({ config, maintenance, metrics, logger }) {
    const keys = config.JOBS_SEALING_KEY;
    if (!config.SMTP_URL || !keys) return NOTHING;
    const taken = await maintenance
      .takeLetters({ limit: LETTERS, keyIds: keys.map(({ id }) => id) })
      .catch((error: unknown) => noLetters(error, logger));
    if (!taken) return NOTHING;
    const { letters } = taken;
    for (const letter of letters) {
      const code = codeOf(letter, keys);
      if (code === null) {
        logger.error({ letter: letter.id }, 'the code of a letter cannot be decrypted: it was changed on its way here');
        metrics.notices.inc({ channel: 'email', outcome: 'due' });
        continue;
      }
      const outcome = await sendMail(config, letter.id, letter, passwordEmail({ ...letter, code }, config.PUBLIC_URL));
      if (outcome.ok || outcome.gone) await maintenance.finishLetter({ id: letter.id });
      if (!outcome.ok) logger.warn({ letter: letter.id, reason: outcome.reason }, 'a letter was not sent');
      metrics.notices.inc({ channel: 'email', outcome: outcome.ok ? 'sent' : outcome.gone ? 'dead' : 'due' });
    }
    return { done: letters.length, more: letters.length === LETTERS };
  },
};

const SAID_EVERY_MS = 60_000;
let saidAt = Number.NEGATIVE_INFINITY;

/** Until somebody changes a setting it is the same every second: said once a minute. @throws what is another failure */
function noLetters(error: unknown, logger: JobContext['logger']): null {
  const reason = unmetPrecondition(error);
  if (reason === undefined) throw error;
  if (performance.now() - saidAt > SAID_EVERY_MS) {
    saidAt = performance.now();
    logger.error({ reason }, 'no password emails are sent: the token-service hands out no codes');
  }
  return null;
}

function codeOf(letter: Letter, keys: readonly DecryptionKey[]): string | null {
  for (const key of keys) {
    const code = decryptWith(key, letter.encryptedCode, passwordEmailContext(letter));
    if (code !== null) return code;
  }
  return null;
}
