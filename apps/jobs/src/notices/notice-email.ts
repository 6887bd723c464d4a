import type { NoticeKind, Letter as PasswordEmail } from '@latchkey/contracts';

/** What a letter or a webhook says: never a secret, only what the tokens page shows. */
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
  reported: (name) => `${name}, which has ended, was found in the open`,
  new_address: (name) => `${name} was used from a new address`,
  used_after_rotation: (name) => `${name} was used after it had been replaced`,
  idle: (name) => `${name} will be revoked because nobody uses it`,
};

const SENTENCES: Record<NoticeKind, (details: Record<string, unknown>) => string> = {
  expiring: (d) => `It stops working at ${d['expiresAt']} (UTC). Rotate it before then if it is still needed.`,
  expired: () => 'It no longer works. Issue a new one if it is still needed.',
  revoked: (d) => `${d['by']} revoked it (reason: ${String(d['reason']).replaceAll('_', ' ')}). It no longer works.`,
  exposed: () =>
    'Somebody presented its secret as found in the open. It no longer works, nor does anything that it was shown. ' +
    'Look at what it was used for, and issue a new one.',
  reported: () =>
    'Somebody presented its secret as found in the open. It had ended before, so nothing was ended by that: what took its ' +
    'place, or was issued or rotated with it, still works. To end that too, revoke it with the reason "it leaked".',
  new_address: (d) => `It was used from ${d['ip']}, for the first time. If you do not know this address, revoke it.`,
  used_after_rotation: (d) =>
    `Somebody at ${d['ip']} presented the old secret after it had been replaced, and was refused. ` +
    'Either a program was not given the new one, or somebody else has the old one.',
  idle: (d) => `It has not been used since ${d['since']}. Unless it is used, it is revoked on ${d['revokedOn']}.`,
};

/** A notice as a letter, in plain text and HTML. Names come from people: control characters go, HTML is escaped. */
export function noticeEmailOf(facts: NoticeInput, publicUrl: string): NoticeEmail {
  const name = oneLine(`"${facts.token.name}" (${facts.token.start}...)`);
  const subject = SUBJECTS[facts.kind](name, facts.details);
  const sentence = oneLine(SENTENCES[facts.kind](facts.details));
  const owner = facts.token.project ? `a token of the project "${oneLine(facts.token.project)}"` : 'your token';
  const link = new URL('/#/api-tokens', publicUrl).href;
  const choice = 'You can choose which of these notices you get on the same page.';
  const paragraphs = [
    `Hello ${oneLine(facts.person.name)},`,
    `this is about ${owner}: ${subject}.`,
    sentence,
    `See it at ${link}`,
    choice,
  ];
  return written(`Latchkey: ${subject}`, paragraphs, { at: 3, link, words: 'See it among the tokens' });
}

/** The letter by which a person sets a password. The code stands behind the `#`, which browsers send to no server. */
export function passwordEmail(
  letter: Omit<PasswordEmail, 'encryptedCode'> & { code: string },
  publicUrl: string,
): NoticeEmail {
  const { host } = new URL(publicUrl);
  const query = new URLSearchParams({ email: letter.email, code: letter.code });
  const link = new URL(`/#/reset?${query}`, publicUrl).href;
  const until = `${letter.expiresAt.slice(0, 16).replace('T', ' ')} (UTC)`;
  const isReset = letter.kind === 'reset';
  const paragraphs = [
    `Hello ${oneLine(letter.name)},`,
    isReset
      ? `somebody asked for a new password for ${letter.email} at Latchkey (${host}). If it was you, set it here:`
      : `an administrator has given you access to Latchkey (${host}). Choose your password here:`,
    link,
    `The link works once, until ${until}.`,
    isReset
      ? 'If it was not you, do nothing: your password stays as it is.'
      : 'If you did not expect this, do nothing.',
  ];
  const words = isReset ? 'Set a new password' : 'Choose your password';
  return written(isReset ? 'Latchkey: a new password' : 'Latchkey: your access', paragraphs, { at: 2, link, words });
}

/** In plain text and HTML; the paragraph `at` is the link. */
function written(
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

/** A notice as it is posted to a webhook: `type`, `timestamp` and `data`, as Standard Webhooks has it. */
export function webhookPayload(facts: NoticeInput): Record<string, unknown> {
  const { byUserId: _, ...details } = facts.details;
  return {
    type: `token.${facts.kind}`,
    timestamp: facts.at.toISOString(),
    data: { token: facts.token, person: { id: facts.person.id, email: facts.person.email }, details },
  };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is taken out
const oneLine = (text: string) => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();

function escapeHtml(text: string): string {
  const names: Record<string, string> = { '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot', "'": '#39' };
  return text.replace(/[&<>"']/g, (c) => `&${names[c]};`);
}
