import { REQUEST_ID_HEADER } from '@latchkey/contracts';
import type { Checks, Decision } from '../check/index.js';
import type { CallerRequest } from '../engine/index.js';
import type { ErrorResponse } from '../http/index.js';
import { type Delegated, identityHeaders, readRequirement } from './delegated.js';
import type { Peers } from './peers.js';

/** `GET /forward-auth` for nginx auth_request, Caddy forward_auth and Traefik ForwardAuth. */
export class ForwardAuth {
  constructor(
    private readonly checks: Checks,
    private readonly delegated: Delegated,
    private readonly peers: Peers,
  ) {}

  /** @param query with its `?`; empty without one */
  handle(request: CallerRequest, query: string): void {
    const { head, peerIp } = request;
    if (head.method !== 'GET' && head.method !== 'HEAD') return void request.refuse(ONLY_GET);
    const required = query === '' ? NOTHING : requirementOf(query);
    if ('error' in required) return void request.refuse(required.error);
    const forwarded = this.peers.forwardedRequest(peerIp, head);
    const { authorization, requestId, ip, userAgent } = head;
    const plan = this.delegated.plan({
      endpoint: 'forward-auth',
      ...(forwarded !== undefined && forwarded !== 'untrusted' && { forwarded }),
      ...required,
      authorization,
      requestId,
      ip,
      userAgent,
    });
    if ('error' in plan) return void request.refuse(plan.error);
    const decided = this.#decide(plan.requests);
    if (!(decided instanceof Promise)) return void this.#respond(request, decided, forwarded === 'untrusted');
    decided
      .then((decision) => this.#respond(request, decision, forwarded === 'untrusted'))
      .catch(() => request.refuse({ code: 'internal', detail: 'The check failed; nothing is known of the token.' }));
  }

  /** Undefined where the path is public. */
  #decide(requests: Parameters<Checks['decideAll']>[0]): Decision | undefined | Promise<Decision> {
    return requests.length === 0 ? undefined : this.checks.decideAll(requests);
  }

  #respond(request: CallerRequest, decision: Decision | undefined, isUntrusted: boolean): void {
    if (decision && !decision.allowed) return void request.refuse(decision.error);
    if (isUntrusted) {
      // Ignoring the headers would reduce every rule of the routes file to "any valid token".
      const detail = `${request.peerIp} is not in FORWARD_AUTH_PEERS, so its X-Forwarded-Method and -Uri are not trusted; add it, or drop the headers.`;
      return void request.refuse({ code: 'forbidden', detail });
    }
    const identity = identityHeaders(decision, request.head.requestId);
    let lines = 'cache-control: no-store\r\n';
    for (const name in identity) if (name !== REQUEST_ID_HEADER) lines += `${name}: ${identity[name]}\r\n`;
    request.respond(204, 'No Content', lines);
  }
}

const NOTHING = { scopes: [] };

const ONLY_GET: ErrorResponse = {
  code: 'method_not_allowed',
  detail: 'Ask with GET; X-Forwarded-Method names the method of the request to be checked.',
  headers: { allow: 'GET, HEAD' },
};

function requirementOf(query: string): ReturnType<typeof readRequirement> {
  const parameters = new URLSearchParams(query);
  const unknown = [...parameters.keys()].find((name) => name !== 'scope' && name !== 'project');
  if (unknown !== undefined) {
    const detail = `The parameter "${unknown.slice(0, 50)}" is unknown; use scope and project.`;
    return { error: { code: 'invalid_request', detail } };
  }
  return readRequirement(parameters.getAll('scope'), parameters.getAll('project'));
}
