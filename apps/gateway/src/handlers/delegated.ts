import { IDENTITY_HEADERS, REQUEST_ID_HEADER, SCOPE_PATTERN } from '@latchkey/contracts';
import type { AuthorizationRequest, Checks, Decision } from '../check/index.js';
import { ENCODED_SLASH_REFUSED, type ErrorResponse, isMethod, readTarget } from '../http/index.js';
import type { Route, RouteRequirement, RouteTable } from '../routes/index.js';

/** A request that a reverse proxy wants checked. */
export interface DelegatedRequest {
  /** Name under which it is counted. */
  readonly endpoint: 'forward-auth' | 'ext-authz';
  /** Of the original request; undefined when the proxy does not send it, or is not trusted. */
  readonly forwarded?: { readonly method: string; readonly uri: string };
  /** Required by the proxy's own configuration. */
  readonly scopes: readonly string[];
  readonly project?: string;
  readonly authorization: string | undefined;
  readonly requestId: string;
  readonly ip: string;
  readonly userAgent: string;
}

export type DelegatedResult =
  /** `identity`: every identity header, empty without a value, so that none from outside survives. */
  | { readonly identity: Readonly<Record<string, string>>; readonly keepAuthorization: boolean }
  | { readonly error: ErrorResponse };

/** All requests must be allowed; without any the path is public. */
export type DelegatedPlan =
  | { readonly requests: readonly AuthorizationRequest[]; readonly keepAuthorization: boolean }
  | { readonly error: ErrorResponse };

/**
 * Checks for reverse proxies: the same decision as the proxy handler's, for a request that another proxy forwards. The
 * requirements of the proxy's configuration and of a matching route must both hold; a public route removes neither.
 */
export class Delegated {
  constructor(
    private readonly checks: Checks,
    private readonly routes: () => RouteTable,
  ) {}

  /** Synchronous where `Checks.decide` is. Never throws. */
  check(delegated: DelegatedRequest): DelegatedResult | Promise<DelegatedResult> {
    const plan = this.plan(delegated);
    if ('error' in plan) return plan;
    const { requests, keepAuthorization } = plan;
    if (requests.length === 0) return { identity: identityHeaders(undefined, delegated.requestId), keepAuthorization };
    const { requestId } = delegated;
    const decision = this.checks.decideAll(requests);
    return decision instanceof Promise
      ? decision.then((late) => resultOf(late, requestId, keepAuthorization))
      : resultOf(decision, requestId, keepAuthorization);
  }

  /** What has to be checked, or the error response for a request refused with any token. */
  plan(delegated: DelegatedRequest): DelegatedPlan {
    const requirements: RouteRequirement[] = [];
    if (delegated.scopes.length > 0 || delegated.project !== undefined)
      requirements.push({ scopes: delegated.scopes, project: delegated.project });

    let route: Route | undefined;
    if (delegated.forwarded) {
      const { method, uri } = delegated.forwarded;
      if (!isMethod(method))
        return { error: { code: 'invalid_request', detail: 'The forwarded method is not valid.' } };
      const routes = this.routes();
      const target = readTarget(uri, routes.allowEncodedSlashes);
      if ('detail' in target) return { error: target };
      if (target.readings && !routes.acceptsEncodedSlashes(target)) return { error: ENCODED_SLASH_REFUSED };
      route = routes.match(target.match);
      if (route && !route.public) {
        const requirement = route.requirement(method, target.path);
        if (!requirement)
          return { error: { code: 'forbidden', detail: `The route ${route.name} does not offer ${method}.` } };
        // Bodies are not available here, so an MCP route requires the scopes of all its tools.
        const { scopes, project } = requirement;
        requirements.push({ scopes: route.mcp ? [...scopes, ...[...route.tools.values()].flat()] : scopes, project });
      }
    }
    if (requirements.length === 0) {
      if (route?.public) return { requests: [], keepAuthorization: false };
      requirements.push({ scopes: [], project: undefined });
    }
    const { endpoint, forwarded, requestId, ip, userAgent, authorization } = delegated;
    const shared = { route: endpoint, method: forwarded?.method ?? '', requestId, ip, userAgent, authorization };
    return {
      requests: merged(requirements).map((requirement) => ({ ...shared, ...requirement })),
      keepAuthorization: route?.forwardAuthorization === true,
    };
  }
}

function resultOf(decision: Decision, requestId: string, keepAuthorization: boolean): DelegatedResult {
  return decision.allowed
    ? { identity: identityHeaders(decision, requestId), keepAuthorization }
    : { error: decision.error };
}

/** Joins the requirements of each project. */
function merged(requirements: readonly RouteRequirement[]): readonly RouteRequirement[] {
  if (requirements.length === 1 && requirements[0]!.scopes.length < 2) return requirements;
  const byProject = new Map<string | undefined, Set<string>>();
  for (const { project, scopes } of requirements) {
    const all = byProject.get(project) ?? new Set();
    for (const scope of scopes) all.add(scope);
    byProject.set(project, all);
  }
  return [...byProject].map(([project, scopes]) => ({ project, scopes: [...scopes] }));
}

/** Identity headers for the upstream; empty ones without a caller. */
export function identityHeaders(
  allowed: Extract<Decision, { allowed: true }> | undefined,
  requestId: string,
): Record<string, string> {
  const principal = allowed?.principal;
  return {
    [IDENTITY_HEADERS.tokenId]: principal?.tokenId ?? '',
    [IDENTITY_HEADERS.owner]: principal ? `${principal.ownerType}:${principal.ownerId}` : '',
    [IDENTITY_HEADERS.project]: principal?.project ?? '',
    [IDENTITY_HEADERS.scopes]: principal?.scopes.join(' ') ?? '',
    [REQUEST_ID_HEADER]: requestId,
  };
}

/**
 * Reads the requirement of a proxy's configuration: scopes separated by spaces, commas or repetition, and one project.
 * A mistake there must not let anyone in, so it is an error response.
 */
export function readRequirement(
  scopeTexts: readonly string[],
  projects: readonly string[],
): { scopes: string[]; project?: string } | { error: ErrorResponse } {
  const scopes = scopeTexts.flatMap((text) => text.split(/[\s,]+/)).filter((scope) => scope !== '');
  const invalid = scopes.find((scope) => !SCOPE_PATTERN.test(scope));
  if (invalid !== undefined || (scopes.length === 0 && scopeTexts.length > 0)) {
    const detail = `"${(invalid ?? '').slice(0, 50)}" is not a valid scope; a scope looks like "documents:read".`;
    return { error: { code: 'invalid_request', detail } };
  }
  const [project] = projects;
  if (projects.length > 1 || (project !== undefined && !/^[0-9a-f-]{36}$/.test(project)))
    return { error: { code: 'invalid_request', detail: 'project must be exactly one project id.' } };
  return project === undefined ? { scopes } : { scopes, project };
}
