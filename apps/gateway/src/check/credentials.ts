/**
 * The secret in an Authorization header, as presented; undefined when it is absent or of another scheme (RFC 6750
 * section 2.1, the scheme in any case). What follows the scheme may be anything: the verifier judges it.
 */
export function bearerSecret(authorization: string | undefined): string | undefined {
  if (authorization === undefined) return undefined;
  const plain = authorization.startsWith('Bearer ');
  if (!plain && !/^bearer(?: |$)/i.test(authorization)) return undefined;
  return plain && authorization.charCodeAt(7) !== 32 ? authorization.slice(7) : authorization.slice(7).trim();
}
