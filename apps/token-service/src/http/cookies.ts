import { SECURE_SESSION_COOKIE, SESSION_COOKIE } from '@latchkey/contracts';
import { parseCookie, type SetCookie, stringifySetCookie } from 'cookie';
import type { TokenServiceConfig } from '../config.js';

type PublicUrl = Pick<TokenServiceConfig, 'PUBLIC_URL'>;

const isSecure = ({ PUBLIC_URL }: PublicUrl): boolean => PUBLIC_URL.startsWith('https:');

/** Name of the session cookie: over https only a secure cookie of the host itself is accepted. */
export const cookieName = (config: PublicUrl): string => (isSecure(config) ? SECURE_SESSION_COOKIE : SESSION_COOKIE);

/** The first cookie of that name (RFC 6265 section 4.2), not decoded. */
export const readCookie = (header: string | undefined, name: string): string | undefined =>
  parseCookie(header ?? '', { decode: (value) => value })[name];

/**
 * A cookie that scripts cannot read, as a `Set-Cookie` header; over https it is secure.
 * @param cookie `maxAge` in seconds; 0 deletes it
 */
export const writeCookie = (
  config: PublicUrl,
  cookie: Required<Pick<SetCookie, 'name' | 'value' | 'path' | 'sameSite' | 'maxAge'>>,
): string => stringifySetCookie({ ...cookie, httpOnly: true, secure: isSecure(config) });
