import { IDENTITY_HEADERS, REQUEST_ID_HEADER, SCOPE_PATTERN } from '@latchkey/contracts';
import { readAuthorization } from '@latchkey/runtime';
import type { Checks, Decision, Inquiry } from '../check/index.js';
import { type ErrorResponse, readTarget } from '../http/index.js';
import type { Route, RouteTable } from '../routes/index.js';

/** What a reverse proxy asks about a request that it holds. */
export interface Question {
  /** Name under which it is counted. */
  readonly door: 'forward-auth' | 'ext-authz';
  /** Of the request that the proxy holds; undefined when the proxy does not say, or is not believed. */
  readonly forwarded?: { readonly method: string; readonly uri: string };
  /** Asked for by the proxy's own configuration. */
  readonly scopes: readonly string[];
  readonly project?: string;
  readonly authorization: string | undefined;
  readonly requestId: string;
  readonly ip: string;
  readonly userAgent: string;
}

export type Answer =
  /** `identity`: every identity header, empty where there is nothing to say, so that none from outside survives. */
  | { readonly identity: Readonly<Record<string, string>>; readonly keepAuthorization: boolean }
  | { readonly refusal: ErrorResponse };

/** What must be allowed of the token, all of it; with no inquiry the path is open to everyone. */
export type Asking =
  | { readonly inquiries: readonly Inquiry[]; readonly keepAuthorization: boolean }
  | { readonly refusal: ErrorResponse };

interface Condition {
  readonly scopes: readonly string[];
  readonly project: string | undefined;
}

/**
 * The doors for reverse proxies: the same decision as the route door's, for a request that somebody else forwards. What
 * the proxy's configuration asks for and what a matching route asks for must both hold; a public route lifts neither.
 */
export class Delegated {
  constructor(
    private readonly checks: Checks,
    private readonly routes: () => RouteTable,
  ) {}

  async answer(question: Question): Promise<Answer> {
    const asking = this.asking(question);
    if ('refusal' in asking) return asking;
    const { inquiries, keepAuthorization } = asking;
    if (inquiries.length === 0) return { identity: identityHeaders(undefined, question.requestId), keepAuthorization };
    const secret = readAuthorization('bearer', question.authorization);
    const decision =
      typeof secret === 'string'
        ? await this.checks.verifyAll(inquiries, secret)
        : this.checks.withoutSecret(inquiries[0]!, secret);
    return decision.allowed
      ? { identity: identityHeaders(decision, question.requestId), keepAuthorization }
      : { refusal: decision.refusal };
  }

  /** What has to be checked, or why the request is refused whatever its token may do. */
  asking(question: Question): Asking {
    const conditions: Condition[] = [];
    const asksItself = question.scopes.length > 0 || question.project !== undefined;
    if (asksItself) conditions.push({ scopes: question.scopes, project: question.project });

    let route: Route | undefined;
    if (question.forwarded) {
      const { method, uri } = question.forwarded;
      const target = readTarget(uri);
      if ('detail' in target) return { refusal: { code: 'invalid_request', detail: target.detail } };
      route = this.routes().match(target.match);
      if (route && !route.public) {
        const needs = route.needs(method, target.path);
        if (!needs)
          return { refusal: { code: 'forbidden', detail: `The route ${route.name} does not offer ${method}.` } };
        // Bodies are not seen here, so a caller of an MCP route must hold what any of its tools asks for.
        const scopes = route.mcp ? [...needs.scopes, ...[...route.tools.values()].flat()] : needs.scopes;
        conditions.push({ scopes, project: needs.project });
      }
    }
    if (conditions.length === 0) {
      if (route?.public) return { inquiries: [], keepAuthorization: false };
      conditions.push({ scopes: [], project: undefined });
    }
    const { door, forwarded, requestId, ip, userAgent, authorization } = question;
    const shared = { route: door, method: forwarded?.method ?? '', requestId, ip, userAgent, authorization };
    return {
      inquiries: merged(conditions).map((condition) => ({ ...shared, ...condition })),
      keepAuthorization: route?.forwardAuthorization === true,
    };
  }
}

/** Conditions about the same project are one; about different projects each is asked for itself. */
function merged(conditions: readonly Condition[]): Condition[] {
  const byProject = new Map<string | undefined, Set<string>>();
  for (const { project, scopes } of conditions) {
    const all = byProject.get(project) ?? new Set();
    for (const scope of scopes) all.add(scope);
    byProject.set(project, all);
  }
  return [...byProject].map(([project, scopes]) => ({ project, scopes: [...scopes] }));
}

/** What the upstream is told of the caller; of nobody when undefined. */
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
 * Reads what a proxy's configuration asks for: scopes separated by spaces, commas or repetition, and one project. A
 * mistake there must not let anybody in, so it is answered with a refusal.
 */
export function readConditions(
  scopeTexts: readonly string[],
  projects: readonly string[],
): { scopes: string[]; project?: string } | { refusal: ErrorResponse } {
  const scopes = scopeTexts.flatMap((text) => text.split(/[\s,]+/)).filter((scope) => scope !== '');
  const wrong = scopes.find((scope) => !SCOPE_PATTERN.test(scope));
  if (wrong !== undefined || (scopes.length === 0 && scopeTexts.length > 0)) {
    const detail = `"${(wrong ?? '').slice(0, 50)}" is no scope; a scope looks like "documents:read".`;
    return { refusal: { code: 'invalid_request', detail } };
  }
  const [project] = projects;
  if (projects.length > 1 || (project !== undefined && !/^[0-9a-f-]{36}$/.test(project)))
    return { refusal: { code: 'invalid_request', detail: 'project must be one project id.' } };
  return project === undefined ? { scopes } : { scopes, project };
}
