import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

/**
 * The caller, as identified by the gateway. The demo does no checks of its own: it can trust these headers because the
 * gateway drops them when they come from outside. Reached directly, every field is null.
 */
export interface Caller {
  tokenId: string | null;
  /** `user:<id>` or `project:<id>`. */
  owner: string | null;
  /** The only project this caller sees, or null when the gateway named none. */
  project: string | null;
  scopes: string[];
  /** The gateway's id of this request; generated here when there is none. */
  requestId: string;
}

const HEADERS_NEVER_ECHOED = new Set(['authorization', 'proxy-authorization', 'cookie']);

function single(headers: IncomingHttpHeaders, name: string): string | null {
  const value = headers[name];
  return typeof value === 'string' && value.length > 0 ? value : null;
}

/** Reads the identity headers of a request. */
export function callerOf(request: IncomingMessage): Caller {
  const requestId = single(request.headers, 'x-request-id');
  return {
    tokenId: single(request.headers, 'x-latchkey-token-id'),
    owner: single(request.headers, 'x-latchkey-owner'),
    project: single(request.headers, 'x-latchkey-project')?.toLowerCase() ?? null,
    scopes: single(request.headers, 'x-latchkey-scopes')?.split(' ') ?? [],
    requestId: requestId && /^[\x21-\x7e]{1,128}$/.test(requestId) ? requestId : randomUUID(),
  };
}

/** The headers that arrived, for people to see what the gateway sends; of credentials only their presence. */
export function headersForPeople(headers: IncomingHttpHeaders): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name,
      HEADERS_NEVER_ECHOED.has(name) ? '(present, not shown)' : Array.isArray(value) ? value.join(', ') : (value ?? ''),
    ]),
  );
}

/** True when this caller may see the project: the gateway named that one, or none. */
export function sees(caller: Caller, projectId: string): boolean {
  return caller.project === null || caller.project === projectId;
}
