import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writePrivate } from './secrets.js';

/** What a person needs for a first call through the gateway. */
export interface FirstToken {
  /** Null unless the token was issued just now. */
  secret: string | null;
  /** A shell command that calls the demo upstream through the gateway. */
  curl: string;
}

const timeoutMs = 10_000;
const demoScopes = ['demo:read', 'demo:write'];

/**
 * Issues a token for the first administrator, in a new project, through the gateway. Later starts reuse it. It is stored
 * as a header for curl in a file that only this user can read, so that neither the printed command nor its arguments,
 * which other users of the machine can see, contain a secret.
 *
 * @param dir where it is stored
 * @param url URL of the gateway on this machine
 * @param origin the `Origin` header: the public URL
 * @returns `null` when the token of an earlier start is no longer valid
 * @throws Error with the status of an unexpected response
 */
export async function firstToken(
  dir: string,
  url: string,
  origin: string,
  admin: { email: string; password: string },
): Promise<FirstToken | null> {
  const header = path.join(dir, 'first-token.header');
  const pathFile = path.join(dir, 'first-token.path');
  let secret: string | null = null;
  if (!existsSync(pathFile)) {
    const issued = await issue(url, origin, admin);
    secret = issued.secret;
    writePrivate(header, `Authorization: Bearer ${secret}\n`);
    writePrivate(pathFile, issued.path);
  }
  const address = `${url}${readFileSync(pathFile, 'utf8')}`;
  const authorization = readFileSync(header, 'utf8').trim().replace('Authorization: ', '');
  const response = await fetch(address, { headers: { authorization }, signal: AbortSignal.timeout(timeoutMs) });
  await response.body?.cancel();
  if (!response.ok) {
    if (secret) throw new Error(`GET ${new URL(address).pathname} returned ${response.status}`);
    return null;
  }
  return { secret, curl: `curl -H @${quote(header)} ${address}` };
}

async function issue(url: string, origin: string, admin: { email: string; password: string }) {
  const call = async (method: string, at: string, body: object, cookie?: string) => {
    const headers = { 'content-type': 'application/json', origin, ...(cookie && { cookie }) };
    const request = { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(timeoutMs) };
    const response = await fetch(`${url}${at}`, request);
    if (!response.ok)
      throw new Error(`${method} ${at} returned ${response.status}: ${(await response.text()).slice(0, 300)}`);
    return response;
  };
  const session = await call('POST', '/v1/session', admin);
  await session.body?.cancel();
  const cookie = session.headers
    .getSetCookie()
    .map((line) => line.split(';', 1)[0])
    .join('; ');
  const created = await call(
    'POST',
    '/v1/projects',
    { name: 'First steps', description: 'Created at the first start' },
    cookie,
  );
  const project = (await created.json()) as { id: string };
  const token = { name: 'first token', description: 'Created at the first start', scopes: demoScopes };
  const issued = (await (await call('POST', '/v1/tokens', token, cookie)).json()) as { secret: string };
  const signOut = { method: 'DELETE', headers: { cookie, origin }, signal: AbortSignal.timeout(timeoutMs) };
  await (await fetch(`${url}/v1/session`, signOut)).body?.cancel();
  return { secret: issued.secret, path: `/demo/projects/${project.id}/documents` };
}

/** Quotes for a POSIX shell, only where needed. */
function quote(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
