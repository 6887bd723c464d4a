import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writePrivate } from './secrets.js';

/** What a person needs for a first call through the gateway. */
export interface FirstToken {
  /** Only when the token was issued just now. */
  secret: string | null;
  /** A line for a shell that answers from the demo upstream through the gateway. */
  curl: string;
}

const timeoutMs = 10_000;
const demoScopes = ['demo:read', 'demo:write'];

/**
 * Issues a token for the first administrator, in a project made for it, through the public door, as that person would.
 * Later starts find it again. It is kept as a header for curl in a file that only this user may read, so that the
 * line to paste holds no secret, nor do the arguments that other users of the machine may see.
 *
 * @param dir where it is kept
 * @param url the public door as seen from this machine
 * @param origin what browsers would say: the public address
 * @returns `null` when the token of an earlier start does not work any more
 * @throws when the doors answer otherwise than they should
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
  const answer = await fetch(address, { headers: { authorization }, signal: AbortSignal.timeout(timeoutMs) });
  await answer.body?.cancel();
  if (!answer.ok) {
    if (secret) throw new Error(`GET ${new URL(address).pathname} answered ${answer.status}`);
    return null;
  }
  return { secret, curl: `curl -H @${quote(header)} ${address}` };
}

async function issue(url: string, origin: string, admin: { email: string; password: string }) {
  const call = async (method: string, at: string, body: object, cookie?: string) => {
    const headers = { 'content-type': 'application/json', origin, ...(cookie && { cookie }) };
    const request = { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(timeoutMs) };
    const answer = await fetch(`${url}${at}`, request);
    if (!answer.ok)
      throw new Error(`${method} ${at} answered ${answer.status}: ${(await answer.text()).slice(0, 300)}`);
    return answer;
  };
  const session = await call('POST', '/v1/session', admin);
  await session.body?.cancel();
  const cookie = session.headers
    .getSetCookie()
    .map((line) => line.split(';', 1)[0])
    .join('; ');
  const made = await call(
    'POST',
    '/v1/projects',
    { name: 'First steps', description: 'Made at the first start' },
    cookie,
  );
  const project = (await made.json()) as { id: string };
  const token = { name: 'first token', description: 'Made at the first start', scopes: demoScopes };
  const issued = (await (await call('POST', '/v1/tokens', token, cookie)).json()) as { secret: string };
  const end = { method: 'DELETE', headers: { cookie, origin }, signal: AbortSignal.timeout(timeoutMs) };
  await (await fetch(`${url}/v1/session`, end)).body?.cancel();
  return { secret: issued.secret, path: `/demo/projects/${project.id}/documents` };
}

/** For a POSIX shell, only where needed. */
function quote(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
