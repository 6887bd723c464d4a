import type { NoticeKind, Letter as PasswordEmail } from '@latchkey/contracts';

/** Content of an email or a webhook: no secret, only what the tokens page shows. */
export interface NoticeInput {
  id: string;
  kind: NoticeKind;
  at: Date;
  token: { id: string; name: string; start: string; kind: string; project: string | null };
  person: { id: string; name: string; email: string };
  details: Record<string, unknown>;
}

export interface NoticeEmail {
  subject: string;
  text: string;
  html: string;
}

const SUBJECTS: Record<NoticeKind, (name: string, details: Record<string, unknown>) => string> = {
  expiring: (name, d) => `${name} expires ${d['days'] === 1 ? 'within a day' : `in ${d['days']} days`}`,
  expired: (name) => `${name} has expired`,
  revoked: (name) => `${name} was revoked`,
  exposed: (name) => `${name} was reported as exposed and is revoked`,
  reported: (name) => `${name}, which no longer works, was found in public`,
  new_address: (name) => `${name} was used from a new address`,
  used_after_rotation: (name) => `${name} was used after it had been replaced`,
  idle: (name) => `${name} will be revoked because it is not used`,
};

const SENTENCES: Record<NoticeKind, (details: Record<string, unknown>) => string> = {
  expiring: (d) => `It stops working at ${d['expiresAt']} (UTC). Rotate it before then if it is still needed.`,
  expired: () => 'It no longer works. Issue a new one if it is still needed.',
  revoked: (d) => `${d['by']} revoked it (reason: ${String(d['reason']).replaceAll('_', ' ')}). It no longer works.`,
  exposed: () =>
    'Somebody reported that its secret was found in public. It no longer works, nor do tokens issued or rotated with it. ' +
    'Check what it was used for, and issue a new one.',
  reported: () =>
    'Somebody reported that its secret was found in public. It did not work any more, so nothing was revoked: its ' +
    'successor, and tokens issued or rotated with it, still work. To revoke those too, revoke it as "it leaked".',
  new_address: (d) => `It was used from ${d['ip']}, for the first time. If you do not know this address, revoke it.`,
  used_after_rotation: (d) =>
    `Somebody at ${d['ip']} presented the old secret after it had been replaced, and was rejected. ` +
    'Either a program still uses the old secret, or somebody else has it.',
  idle: (d) => `It has not been used since ${d['since']}. Unless it is used, it is revoked on ${d['revokedOn']}.`,
};

/** A notice as an email, in plain text and HTML. Control characters are removed from names, and HTML is escaped. */
export function noticeEmailOf(notice: NoticeInput, publicUrl: string): NoticeEmail {
  const name = oneLine(`"${notice.token.name}" (${notice.token.start}...)`);
  const subject = SUBJECTS[notice.kind](name, notice.details);
  const sentence = oneLine(SENTENCES[notice.kind](notice.details));
  const owner = notice.token.project ? `a token of the project "${oneLine(notice.token.project)}"` : 'your token';
  const link = new URL('/#/api-tokens', publicUrl).href;
  const choice = 'You can choose which of these notices you get on the same page.';
  const paragraphs = [
    `Hello ${oneLine(notice.person.name)},`,
    `this is about ${owner}: ${subject}.`,
    sentence,
    `See it at ${link}`,
    choice,
  ];
  return emailOf(`Latchkey: ${subject}`, paragraphs, { at: 3, link, words: 'See it among the tokens' });
}

/** The email with the link to set a password. The code is in the URL fragment, which browsers send to no server. */
export function passwordEmail(
  email: Omit<PasswordEmail, 'encryptedCode'> & { code: string },
  publicUrl: string,
): NoticeEmail {
  const { host } = new URL(publicUrl);
  const query = new URLSearchParams({ email: email.email, code: email.code });
  const link = new URL(`/#/reset?${query}`, publicUrl).href;
  const until = `${email.expiresAt.slice(0, 16).replace('T', ' ')} (UTC)`;
  const isReset = email.kind === 'reset';
  const paragraphs = [
    `Hello ${oneLine(email.name)},`,
    isReset
      ? `somebody asked for a new password for ${email.email} at Latchkey (${host}). If it was you, set it here:`
      : `an administrator has given you access to Latchkey (${host}). Choose your password here:`,
    link,
    `The link works once, until ${until}.`,
    isReset
      ? 'If it was not you, do nothing: your password stays as it is.'
      : 'If you did not expect this, do nothing.',
  ];
  const words = isReset ? 'Set a new password' : 'Choose your password';
  return emailOf(isReset ? 'Latchkey: a new password' : 'Latchkey: your access', paragraphs, { at: 2, link, words });
}

/** Plain text and HTML; the paragraph `at` is the link. */
function emailOf(
  subject: string,
  paragraphs: string[],
  { at, link, words }: { at: number; link: string; words: string },
) {
  const html = paragraphs
    .map((p, i) => (i === at ? `<p><a href="${escapeHtml(link)}">${words}</a></p>` : `<p>${escapeHtml(p)}</p>`))
    .join('\n');
  return {
    subject,
    text: `${paragraphs.join('\n\n')}\n`,
    html: `<!doctype html>\n<html lang="en"><body>\n${html}\n</body></html>\n`,
  };
}

/** The body of a webhook: `type`, `timestamp` and `data`, as in Standard Webhooks. */
export function webhookPayload(notice: NoticeInput): Record<string, unknown> {
  const { byUserId: _, ...details } = notice.details;
  return {
    type: `token.${notice.kind}`,
    timestamp: notice.at.toISOString(),
    data: { token: notice.token, person: { id: notice.person.id, email: notice.person.email }, details },
  };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: removes control characters
const oneLine = (text: string) => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();

function escapeHtml(text: string): string {
  const names: Record<string, string> = { '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot', "'": '#39' };
  return text.replace(/[&<>"']/g, (c) => `&${names[c]};`);
}
