import type { Transporter } from 'nodemailer';
import type { JobsConfig } from '../config.js';
import type { NoticeEmail } from './notice-email.js';

/** How a letter fared: `gone` when it can never be delivered. */
export type MailOutcome = { ok: true } | { ok: false; gone: boolean; reason: string };

const transports = new Map<string, Promise<Transporter>>();

function transport(url: string): Promise<Transporter> {
  let made = transports.get(url);
  if (!made) {
    made = openTransport(url);
    transports.set(url, made);
  }
  return made;
}

async function openTransport(url: string): Promise<Transporter> {
  // Loaded with the first letter: a worker starts faster.
  const { createTransport } = await import('nodemailer');
  return createTransport(url, {
    // A letter names tokens and people: where the server offers TLS it is used, and its certificate is checked.
    connectionTimeout: 10_000,
    greetingTimeout: 10_000,
    socketTimeout: 20_000,
    disableFileAccess: true,
    disableUrlAccess: true,
  } as object);
}

/** Hands a letter to the mail server. Sent again with the same id, it carries the same Message-ID. Never throws. */
export async function sendMail(
  { SMTP_URL, MAIL_FROM, PUBLIC_URL }: Pick<JobsConfig, 'SMTP_URL' | 'MAIL_FROM' | 'PUBLIC_URL'>,
  id: string,
  to: { name: string; email: string },
  letter: NoticeEmail,
): Promise<MailOutcome> {
  if (!SMTP_URL) return { ok: false, gone: false, reason: 'SMTP_URL is not set' };
  try {
    const mail = await transport(SMTP_URL);
    await mail.sendMail({
      from: MAIL_FROM,
      to: { name: to.name, address: to.email },
      messageId: `<${id}@${new URL(PUBLIC_URL).hostname}>`,
      headers: { 'Auto-Submitted': 'auto-generated' },
      ...letter,
    });
    return { ok: true };
  } catch (error) {
    const { code, responseCode } = error as { code?: string; responseCode?: number };
    // 5xx speaks of this address or letter for good (RFC 5321 section 4.2.1), unless it is about who sends.
    const gone = responseCode !== undefined && responseCode >= 550 && responseCode < 560 && code === 'EENVELOPE';
    return { ok: false, gone, reason: `the mail server said ${responseCode ?? code ?? 'nothing'}` };
  }
}
