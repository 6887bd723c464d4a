import type { AuthorizationRequest, Checks, Decision } from '../check/index.js';
import type { ErrorResponse, RequestHead } from '../http/index.js';
import type { Route, RouteRequirement } from '../routes/index.js';

/** What a route requires of a request, or the error response for a method that it does not offer. */
export type RequirementResult = { readonly requirement: RouteRequirement } | { readonly error: ErrorResponse };

/** @param path as forwarded, so that captures are what the upstream sees */
export function requirementOf(route: Route, method: string, path: string): RequirementResult {
  const requirement = route.requirement(method, path);
  const allowed = route.mcp ? ['GET', 'POST', 'DELETE'] : undefined;
  if (requirement && (!allowed || allowed.includes(method))) return { requirement };
  const methods = allowed ?? (route.methods ?? []).flatMap((m) => (m === 'GET' ? ['GET', 'HEAD'] : [m]));
  return {
    error: {
      code: 'method_not_allowed',
      detail: `The route ${route.name} does not offer ${method}.`,
      headers: { allow: methods.join(', ') },
    },
  };
}

export function authorizationRequestOf(
  route: Route,
  method: string,
  head: RequestHead,
  { scopes, project }: RouteRequirement,
): AuthorizationRequest {
  return {
    route: route.name,
    method,
    requestId: head.requestId,
    ip: head.ip,
    userAgent: head.userAgent,
    authorization: head.authorization,
    scopes,
    project,
  };
}

/** Calls `next` with the decision, synchronously when it is available at once. */
export function whenDecided(
  checks: Checks,
  request: AuthorizationRequest,
  options: { preliminary?: boolean },
  next: (decision: Decision) => void,
  onFault: (error: unknown) => void,
): void {
  const decision = checks.decide(request, options);
  if (decision instanceof Promise) decision.then(next).catch(onFault);
  else next(decision);
}
