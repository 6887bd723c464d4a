import type { DenialReason, ErrorCode } from '@latchkey/contracts';
import { codeForDenial, ERRORS } from '@latchkey/contracts';
import { MALFORMED, type RateState, type ReadAuthorization, rateHeaders, readAuthorization } from '@latchkey/runtime';
import type { Principal, UsageReporter, Verdict, Verifier } from '@latchkey/verifier';
import type { ErrorResponse } from '../http/index.js';

/** A request to authorize, the same for every endpoint. */
export interface AuthorizationRequest {
  /** Name under which it is counted. */
  readonly route: string;
  readonly method: string;
  readonly requestId: string;
  readonly ip: string;
  readonly userAgent: string;
  /** The Authorization header, unparsed. */
  readonly authorization: string | undefined;
  readonly scopes: readonly string[];
  readonly project?: string | undefined;
  /** Uses counted towards rate limits: the messages of a batch. Default 1. */
  readonly uses?: number;
}

export interface RateLimiter {
  consumeAll(tokenId: string, rates: Principal['rates'], uses?: number): Promise<RateState>;
}

/** Counts verdicts. */
export type UsageCounter = Pick<UsageReporter, 'count' | 'deny'>;

export type Decision =
  | { readonly allowed: true; readonly principal: Principal; readonly secret: string; readonly rate?: RateState }
  | { readonly allowed: false; readonly error: ErrorResponse; readonly reason: DenialReason };

export interface DecideOptions {
  /** A check before a body is read: an allowed request is neither counted nor rate-limited yet. */
  readonly preliminary?: boolean;
}

const DETAILS: Partial<Record<DenialReason, string>> = {
  address_not_allowed: 'The token may not be used from this address.',
  unavailable: 'The token cannot be checked now: a required service is unavailable. Try again shortly.',
  rate_limited: "The token's rate limit is exceeded. Retry after the seconds in Retry-After.",
  restored: ERRORS.restored.meaning,
};

/** Whether the denial says nothing about the token's validity: the caller is to try again, and gets 503. */
export const isTemporary = (reason: DenialReason): boolean => ERRORS[codeForDenial(reason)].status === 503;

/** The response to a request whose token was denied while it was open. */
export function errorForCut(reason: DenialReason): ErrorResponse {
  if (isTemporary(reason)) return { code: codeForDenial(reason), detail: DETAILS[reason]! };
  return { code: 'invalid_token', detail: 'The token became invalid while the request was open.' };
}

/**
 * The one decision for all endpoints: proxy, forward-auth, ext-authz and whoami map their request to an
 * {@link AuthorizationRequest}, and the decision to their response.
 */
export class Checks {
  constructor(
    private readonly verifier: Pick<Verifier, 'verify'>,
    private readonly limits: RateLimiter,
    private readonly usage: UsageCounter,
  ) {}

  /** Synchronous when the verifier decides from memory and no rate limit applies. Never throws. */
  decide(request: AuthorizationRequest, options: DecideOptions = {}): Decision | Promise<Decision> {
    const secret = readAuthorization('bearer', request.authorization);
    return typeof secret === 'string' ? this.verify(request, secret, options) : this.withoutSecret(request, secret);
  }

  /** The same for a secret already read from the header. */
  verify(request: AuthorizationRequest, secret: string, options: DecideOptions = {}): Decision | Promise<Decision> {
    const requirement =
      request.project === undefined
        ? { scopes: request.scopes, ip: request.ip }
        : { scopes: request.scopes, project: request.project, ip: request.ip };
    const verdict = this.verifier.verify(secret, requirement);
    return verdict instanceof Promise
      ? verdict.then((late) => this.#conclude(request, secret, late, options))
      : this.#conclude(request, secret, verdict, options);
  }

  /** Several requirements of one request, at least one: see {@link verifyAll}. Synchronous where {@link decide} is. */
  decideAll(requests: readonly AuthorizationRequest[]): Decision | Promise<Decision> {
    const [first] = requests;
    if (requests.length === 1) return this.decide(first!);
    const secret = readAuthorization('bearer', first!.authorization);
    return typeof secret === 'string' ? this.verifyAll(requests, secret) : this.withoutSecret(first!, secret);
  }

  /** Several requirements of one HTTP request: all must be allowed, and the verdict is counted once, under the last. */
  async verifyAll(requests: readonly AuthorizationRequest[], secret: string): Promise<Decision> {
    for (const request of requests.slice(0, -1)) {
      const decision = await this.verify(request, secret, { preliminary: true });
      if (!decision.allowed) return decision;
    }
    return this.verify(requests.at(-1)!, secret);
  }

  #conclude(
    request: AuthorizationRequest,
    secret: string,
    verdict: Verdict,
    options: DecideOptions,
  ): Decision | Promise<Decision> {
    if (!verdict.allowed) return this.deny(request, verdict.reason, verdict.tokenId);
    const { principal } = verdict;
    if (options.preliminary) return { allowed: true, principal, secret };
    if (principal.rates.length > 0) {
      return this.limits.consumeAll(principal.tokenId, principal.rates, request.uses).then((rate) => {
        if (!rate.allowed) return this.deny(request, 'rate_limited', principal.tokenId, { headers: rateHeaders(rate) });
        this.usage.count(principal.tokenId, request.route, 'allowed', request.ip, request.userAgent);
        return { allowed: true, principal, secret, rate };
      });
    }
    this.usage.count(principal.tokenId, request.route, 'allowed', request.ip, request.userAgent);
    return { allowed: true, principal, secret };
  }

  /** Denies for a reason that the verifier does not check, and counts the denial. */
  deny(
    request: AuthorizationRequest,
    reason: DenialReason,
    tokenId: string | undefined,
    override: Pick<ErrorResponse, 'headers'> & { detail?: string } = {},
  ): Extract<Decision, { allowed: false }> {
    if (tokenId !== undefined) this.usage.count(tokenId, request.route, reason, request.ip, request.userAgent);
    this.#recordDenial(request, reason, tokenId);
    const code = codeForDenial(reason);
    const { headers, detail = detailOf(reason, code, request) } = override;
    return {
      allowed: false,
      reason,
      error: { code, detail, scopes: request.scopes, ...(headers ? { headers } : {}) },
    };
  }

  #recordDenial(
    { requestId, route, method, ip }: AuthorizationRequest,
    reason: DenialReason,
    tokenId: string | undefined,
  ): void {
    this.usage.deny({ requestId, reason, tokenId: tokenId ?? null, route, method, ip });
  }

  /** Denies a request without a header, or with a malformed one (RFC 6750 section 3.1 distinguishes them). */
  withoutSecret(
    request: AuthorizationRequest,
    read: Exclude<ReadAuthorization, string>,
  ): Extract<Decision, { allowed: false }> {
    this.#recordDenial(request, 'malformed', undefined);
    const error: ErrorResponse =
      read === MALFORMED
        ? { code: 'invalid_request', detail: 'The Authorization header must be "Bearer", one space and the token.' }
        : { code: 'unauthenticated', detail: 'Send a token as "Authorization: Bearer <token>".' };
    return { allowed: false, reason: 'malformed', error };
  }
}

function detailOf(reason: DenialReason, code: ErrorCode, { scopes, project }: AuthorizationRequest): string {
  const fixed = DETAILS[reason];
  if (fixed) return fixed;
  if (code !== 'insufficient_scope')
    return 'The token is not accepted. Its owner or an administrator can look up the requestId.';
  const where = project === undefined ? '' : ', or not in this project';
  return `The token lacks a right that this request requires${where}.${scopes.length ? ` Required: ${scopes.join(' ')}.` : ''}`;
}
