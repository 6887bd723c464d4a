import { appendFileSync } from 'node:fs';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import type { IssuedToken, Project, Token, TokenEffect, User } from '@latchkey/contracts';
import { type Place, readyOf } from './stack.js';

export interface ApiResponse<T = Record<string, never>> {
  status: number;
  headers: Headers;
  /** The body as JSON; its text where it is not; undefined when empty. */
  body: T;
}

export interface Ask {
  /** Sent as a Bearer token. */
  token?: string;
  headers?: Record<string, string>;
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is. */
  body?: string | Uint8Array | ReadableStream;
}

/** Sends a request and reads the whole response. Redirects are not followed. */
export async function ask<T>(
  url: string,
  method = 'GET',
  { token, headers = {}, json, body }: Ask = {},
): Promise<ApiResponse<T>> {
  const response = await fetch(url, {
    method,
    redirect: 'manual',
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(json === undefined ? (body === undefined ? {} : { body, duplex: 'half' }) : { body: JSON.stringify(json) }),
  } as RequestInit);
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: parsed(text) as T };
}

function parsed(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Requests a path exactly as written, which `fetch` would normalise, with headers as a flat list of names and values. */
export function askRaw(
  url: string,
  target: string,
  headers: string[] = [],
  method = 'GET',
): Promise<{ status: number; headers: IncomingHttpHeaders; text: string }> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { hostname, port, path: target, method, headers: ['Host', `${hostname}:${port}`, ...headers] },
      async (response) => {
        const text = (await response.setEncoding('utf8').toArray()).join('');
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
      },
    );
    request.on('error', reject);
    request.end();
  });
}

/** A person signed in at the gateway. */
export class Person {
  private constructor(
    readonly place: Place,
    readonly user: User,
    readonly cookie: string,
  ) {}

  static async signIn(place: Place, email: string, password: string): Promise<Person> {
    const { url } = readyOf(place);
    const response = await ask<{ user: User }>(`${url}/v1/session`, 'POST', {
      json: { email, password },
      headers: { origin: url },
    });
    if (response.status !== 200)
      throw new Error(`sign-in returned ${response.status} ${JSON.stringify(response.body)}`);
    const cookie = response.headers
      .getSetCookie()
      .map((line) => line.split(';', 1)[0])
      .join('; ');
    return new Person(place, response.body.user, cookie);
  }

  static admin(place: Place): Promise<Person> {
    const { adminEmail, adminPassword } = readyOf(place);
    return Person.signIn(place, adminEmail, adminPassword);
  }

  /** Calls the management API with the session's cookie. */
  call<T>(method: string, path: string, request: Ask = {}): Promise<ApiResponse<T>> {
    const { url } = readyOf(this.place);
    return ask<T>(url + path, method, {
      ...request,
      headers: { cookie: this.cookie, origin: url, ...request.headers },
    });
  }

  private async must<T>(status: number, method: string, path: string, json?: unknown): Promise<T> {
    const response = await this.call<T>(method, path, json === undefined ? {} : { json });
    if (response.status !== status)
      throw new Error(`${method} ${path} returned ${response.status} ${JSON.stringify(response.body)}`);
    return response.body;
  }

  project(name: string): Promise<Project> {
    return this.must<Project>(201, 'POST', '/v1/projects', { name });
  }

  /** Issues a token and records its secret for the search for leaks. */
  async issue(fields: Record<string, unknown>): Promise<IssuedToken> {
    const issued = await this.must<IssuedToken>(201, 'POST', '/v1/tokens', { name: 'end to end', ...fields });
    noteSecret(this.place, issued.secret);
    return issued;
  }

  token(id: string): Promise<Token> {
    return this.must<Token>(200, 'GET', `/v1/tokens/${id}`);
  }

  revoke(id: string, reason = 'no_longer_needed'): Promise<TokenEffect> {
    return this.must<TokenEffect>(200, 'POST', `/v1/tokens/${id}/revoke`, { reason });
  }
}

/** Every secret that a test is given goes through here, so that the search for leaks includes it. */
export function noteSecret(place: Place, secret: string): void {
  appendFileSync(place.secrets, `${secret}\n`);
}
