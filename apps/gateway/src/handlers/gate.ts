import type { Checks, Decision, Inquiry } from '../check/index.js';
import type { ErrorResponse, RequestHead } from '../http/index.js';
import type { Needs, Route } from '../routes/index.js';

/** What a route asks of a request, or why it is refused before any token is looked at. */
export type Asked = { readonly needs: Needs } | { readonly refusal: ErrorResponse };

/** @param path as forwarded, so that what is captured is what the upstream sees */
export function askedBy(route: Route, method: string, path: string): Asked {
  const needs = route.needs(method, path);
  const allowed = route.mcp ? ['GET', 'POST', 'DELETE'] : undefined;
  if (needs && (!allowed || allowed.includes(method))) return { needs };
  const methods = allowed ?? (route.methods ?? []).flatMap((m) => (m === 'GET' ? ['GET', 'HEAD'] : [m]));
  return {
    refusal: {
      code: 'method_not_allowed',
      detail: `The route ${route.name} does not offer ${method}.`,
      headers: { allow: methods.join(', ') },
    },
  };
}

export function inquiryOf(route: Route, method: string, head: RequestHead, needs: Needs): Inquiry {
  return {
    route: route.name,
    method,
    requestId: head.requestId,
    ip: head.ip,
    userAgent: head.userAgent,
    authorization: head.authorization,
    scopes: needs.scopes,
    project: needs.project,
  };
}

/** Calls on with the decision, now when it is there now. */
export function whenDecided(
  checks: Checks,
  inquiry: Inquiry,
  options: { preliminary?: boolean },
  next: (decision: Decision) => void,
  onFault: (error: unknown) => void,
): void {
  const decision = checks.decide(inquiry, options);
  if (decision instanceof Promise) decision.then(next).catch(onFault);
  else next(decision);
}
