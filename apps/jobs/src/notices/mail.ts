import type { Transporter } from 'nodemailer';
import type { JobsConfig } from '../config.js';
import type { NoticeEmail } from './notice-email.js';

/** The result of sending an email. `gone`: it can never be delivered. */
export type MailOutcome = { ok: true } | { ok: false; gone: boolean; reason: string };

const transports = new Map<string, Promise<Transporter>>();

function transport(url: string): Promise<Transporter> {
  let transporter = transports.get(url);
  if (!transporter) {
    transporter = openTransport(url);
    transports.set(url, transporter);
  }
  return transporter;
}

async function openTransport(url: string): Promise<Transporter> {
  // Loaded with the first email: a worker starts faster.
  const { createTransport } = await import('nodemailer');
  return createTransport(url, {
    // Emails name tokens and people: TLS is used where the server offers it, and its certificate is checked.
    connectionTimeout: 10_000,
    greetingTimeout: 10_000,
    socketTimeout: 20_000,
    disableFileAccess: true,
    disableUrlAccess: true,
  } as object);
}

/** Sends an email. The Message-ID is derived from `id`. Never throws. */
export async function sendMail(
  { SMTP_URL, MAIL_FROM, PUBLIC_URL }: Pick<JobsConfig, 'SMTP_URL' | 'MAIL_FROM' | 'PUBLIC_URL'>,
  id: string,
  to: { name: string; email: string },
  email: NoticeEmail,
): Promise<MailOutcome> {
  if (!SMTP_URL) return { ok: false, gone: false, reason: 'SMTP_URL is not set' };
  try {
    const mail = await transport(SMTP_URL);
    await mail.sendMail({
      from: MAIL_FROM,
      to: { name: to.name, address: to.email },
      messageId: `<${id}@${new URL(PUBLIC_URL).hostname}>`,
      headers: { 'Auto-Submitted': 'auto-generated' },
      ...email,
    });
    return { ok: true };
  } catch (error) {
    const { code, responseCode } = error as { code?: string; responseCode?: number };
    // 5xx is permanent for this address or email (RFC 5321 section 4.2.1), unless it is about the sender.
    const gone = responseCode !== undefined && responseCode >= 550 && responseCode < 560 && code === 'EENVELOPE';
    return { ok: false, gone, reason: `the mail server failed (${responseCode ?? code ?? 'no response'})` };
  }
}
