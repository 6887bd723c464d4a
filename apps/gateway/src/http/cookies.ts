import { SECURE_SESSION_COOKIE, SESSION_COOKIE } from '@latchkey/contracts';

const isSessionName = (name: string) =>
  name.toLowerCase() === SESSION_COOKIE || name.toLowerCase() === SECURE_SESSION_COOKIE.toLowerCase();

/** A Cookie header without the console's session cookie; undefined when nothing is left. */
export function withoutSessionCookie(cookie: string): string | undefined {
  if (!cookie.toLowerCase().includes(SESSION_COOKIE)) return cookie;
  const kept = cookie.split(';').filter((pair) => {
    const end = pair.indexOf('=');
    return !isSessionName((end < 0 ? pair : pair.slice(0, end)).trim().replace(/^"|"$/g, ''));
  });
  const rest = kept.join(';').trim();
  return rest === '' ? undefined : rest;
}

/** True for a Set-Cookie value that would set the console's session cookie, also as a nameless cookie. */
export function setsSessionCookie(value: string): boolean {
  const pair = value.split(';', 1)[0]!.replace(/^[\s=]+/, '');
  const end = pair.indexOf('=');
  return isSessionName((end < 0 ? pair : pair.slice(0, end)).trim());
}
