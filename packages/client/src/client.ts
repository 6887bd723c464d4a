import { ENDPOINTS_TABLE } from '@latchkey/contracts/endpoints-table';
import { LatchkeyError } from './errors.js';
import { type Retries, Transport } from './transport.js';
import type { Answer, CallName, Client, CommonOptions } from './types.js';

export interface ClientOptions {
  /** URL of Latchkey, for example `https://tokens.example.org`; `''` in a page that it serves. */
  baseUrl: string;
  /**
   * The secret sent as Bearer token, or a function that returns it before each request. Without one, calls use the
   * browser's session cookie.
   */
  token?: string | (() => string | Promise<string>);
  /** Whether the browser sends its cookies: `same-origin` (default), or `include` where the console has another origin. */
  credentials?: 'same-origin' | 'include';
  /** Sends requests; the global `fetch` by default. */
  fetch?: typeof globalThis.fetch;
  /** Timeout of a call, in milliseconds; 30 000 by default. A longer `waitSeconds` extends it. */
  timeoutMs?: number;
  /** How calls that can be repeated are retried. */
  retries?: Partial<Retries>;
  /** `User-Agent` of requests; browsers ignore it. */
  userAgent?: string;
}

/** The input of any call; the public types are stricter. */
interface AnyInput {
  params?: Record<string, unknown>;
  query?: Record<string, unknown>;
  body?: unknown;
}
interface AnyOptions extends CommonOptions {
  waitSeconds?: number;
  idempotencyKey?: string;
}

const WAIT_MARGIN_MS = 15_000;

/**
 * A client of the management API, for browsers and for Node.
 *
 * Retried on 503 and on network failures: reads, and `issueToken`, which sends an `Idempotency-Key` for that. Other
 * calls are not, since an interrupted change may have been applied. If the response to an `issueToken` was lost, the
 * retry returns the token without its secret (status 200).
 * @throws TypeError when `baseUrl` is not an http or https URL, or contains a user name or password
 */
export function createClient(options: ClientOptions): Client {
  const baseUrl = checkedBaseUrl(options.baseUrl);
  const transport = new Transport({
    fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    timeoutMs: options.timeoutMs ?? 30_000,
    retries: { attemptsMax: 3, delayMsMin: 200, delayMsMax: 10_000, ...options.retries },
  });

  async function open(name: CallName, input: AnyInput = {}, given: AnyOptions = {}, streamed = true) {
    const [method, path, form] = ENDPOINTS_TABLE[name].split(' ') as [string, string, string | undefined];
    const headers = new Headers({
      accept: `${given.accept ?? 'application/json'}, application/problem+json;q=0.9, */*;q=0.5`,
    });
    const init: RequestInit = {
      method,
      headers,
      redirect: 'manual',
      credentials: options.credentials ?? 'same-origin',
    };
    if (options.token !== undefined) {
      const secret = typeof options.token === 'function' ? await options.token() : options.token;
      headers.set('authorization', `Bearer ${secret}`);
      init.credentials = 'omit';
    }
    if (options.userAgent) headers.set('user-agent', options.userAgent);
    if (given.waitSeconds !== undefined) headers.set('prefer', `wait=${given.waitSeconds}`);
    const isIdempotent = name === 'issueToken';
    if (isIdempotent) headers.set('idempotency-key', given.idempotencyKey ?? randomKey());
    if (input.body !== undefined) {
      headers.set('content-type', form ? 'application/x-www-form-urlencoded' : 'application/json');
      init.body = form ? searchOf(input.body as Record<string, unknown>).toString() : JSON.stringify(input.body);
    }
    return transport.send(baseUrl + pathOf(path, input), init, {
      signal: given.signal,
      timeoutMs: given.timeoutMs,
      atLeastMs: given.waitSeconds === undefined ? 0 : given.waitSeconds * 1_000 + WAIT_MARGIN_MS,
      repeatable: method === 'GET' || isIdempotent,
      streamed,
    });
  }

  async function call(name: CallName, input?: AnyInput, given?: AnyOptions) {
    const { response, done } = await open(name, input, given, false);
    return done(async () => ({
      status: response.status,
      body: await bodyOf(response),
      headers: response.headers,
    }));
  }

  async function* pages(name: CallName, input: AnyInput = {}, given?: AnyOptions) {
    let cursor = input.query?.['cursor'];
    do {
      const { body } = await call(name, { ...input, query: { ...input.query, cursor } }, given);
      yield body;
      cursor = (body as { nextCursor: string | null }).nextCursor ?? undefined;
    } while (cursor !== undefined);
  }

  async function* each(name: CallName, input?: AnyInput, given?: AnyOptions) {
    for await (const page of pages(name, input, given)) yield* (page as { items: unknown[] }).items;
  }

  const methods = Object.fromEntries(
    (Object.keys(ENDPOINTS_TABLE) as CallName[]).map((name) => [
      name,
      async (input?: AnyInput, given?: AnyOptions) => (await call(name, input, given)).body,
    ]),
  );
  const general = {
    call: call as (name: CallName) => Promise<Answer<CallName>>,
    open: async (name: CallName, input?: AnyInput, given?: AnyOptions) => (await open(name, input, given)).response,
    pages,
    each,
  };
  return { ...methods, ...general } as unknown as Client;
}

function checkedBaseUrl(baseUrl: string): string {
  if (baseUrl === '') return '';
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
  if (!url || !/^https?:$/.test(url.protocol)) throw new TypeError('baseUrl must be an http or https URL');
  if (url.username || url.password) throw new TypeError('baseUrl must not contain a user name or password');
  if (url.search || url.hash) throw new TypeError('baseUrl must not contain a query or fragment');
  return baseUrl.replace(/\/+$/, '');
}

function pathOf(path: string, { params = {}, query = {} }: AnyInput): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = String(params[name] ?? '');
    // These would lead to another path once the URL is normalised.
    if (value === '' || value === '.' || value === '..') throw new TypeError(`the parameter ${name} is empty or dots`);
    return encodeURIComponent(value);
  });
  const search = searchOf(query).toString();
  return search ? `${filled}?${search}` : filled;
}

function searchOf(values: Record<string, unknown>): URLSearchParams {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined) search.set(name, String(value));
  return search;
}

async function bodyOf(response: Response): Promise<unknown> {
  const text = await response.text();
  if (text === '') return null;
  if (!/^application\/(.+\+)?json\b/.test(response.headers.get('content-type') ?? '')) return text;
  try {
    return JSON.parse(text);
  } catch (cause) {
    const detail = 'the response is not valid JSON despite its content type';
    const requestId = response.headers.get('x-request-id');
    throw new LatchkeyError({ code: 'bad_answer', status: response.status, detail, requestId }, cause);
  }
}

/** 128 random bits; `crypto.randomUUID` is missing in pages loaded over plain http. */
function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
