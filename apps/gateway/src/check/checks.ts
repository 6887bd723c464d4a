import type { DenialReason, ErrorCode, UsageBatch, UsageBatchEvent } from '@latchkey/contracts';
import { codeForDenial } from '@latchkey/contracts';
import { MALFORMED, type RateState, type ReadAuthorization, rateHeaders, readAuthorization } from '@latchkey/runtime';
import type { Principal, Requirement, Stream, UsageReporter, Verdict } from '@latchkey/verifier';
import type { ErrorResponse } from '../http/index.js';

/** What the gateway uses of a verifier. */
export interface Verifying {
  verify(secret: string, requirement: Requirement): Verdict | Promise<Verdict>;
  watch(secret: string, requirement: Requirement, stream: Stream): () => void;
  signBatch(batch: Omit<UsageBatch, 'verifier' | 'tickets'>): UsageBatchEvent | undefined;
}

/** A request that asks to be let in, the same for every door. */
export interface Inquiry {
  /** Name under which it is counted. */
  readonly route: string;
  readonly method: string;
  readonly requestId: string;
  readonly ip: string;
  readonly userAgent: string;
  /** The Authorization header as it came. */
  readonly authorization: string | undefined;
  readonly scopes: readonly string[];
  readonly project?: string | undefined;
  /** Uses that its rate counts it for: the messages of a batch. Default 1. */
  readonly uses?: number;
}

export interface RateLimiting {
  consumeAll(tokenId: string, rates: Principal['rates'], uses?: number): Promise<RateState>;
}

/** Where verdicts are counted. */
export type Accounting = Pick<UsageReporter, 'count' | 'deny'>;

export type Decision =
  | { readonly allowed: true; readonly principal: Principal; readonly secret: string; readonly rate?: RateState }
  | { readonly allowed: false; readonly refusal: ErrorResponse; readonly reason: DenialReason };

export interface DecideOptions {
  /** A first look before a body is read: what is allowed is neither counted nor limited yet. */
  readonly preliminary?: boolean;
}

const DETAILS: Partial<Record<DenialReason, string>> = {
  address_not_allowed: 'The token may not be used from this address.',
  unavailable: 'The token cannot be checked now, because a part that is needed is away. Try again shortly.',
  rate_limited: "The token's rate limit is used up. Wait as long as Retry-After says.",
};

/**
 * The one decision behind all doors: proxy, forward-auth, Envoy and the gateway's own calls map their request to an
 * {@link Inquiry}, and the decision to their answer.
 */
export class Checks {
  constructor(
    private readonly verifier: Pick<Verifying, 'verify'>,
    private readonly limits: RateLimiting,
    private readonly accounts: Accounting,
  ) {}

  /** Answers at once when the verifier answers from memory and no rate limit is to be counted. Never throws. */
  decide(inquiry: Inquiry, options: DecideOptions = {}): Decision | Promise<Decision> {
    const secret = readAuthorization('bearer', inquiry.authorization);
    return typeof secret === 'string' ? this.verify(inquiry, secret, options) : this.withoutSecret(inquiry, secret);
  }

  /** The same about a secret that somebody else has read from the header. */
  verify(inquiry: Inquiry, secret: string, options: DecideOptions = {}): Decision | Promise<Decision> {
    const requirement =
      inquiry.project === undefined
        ? { scopes: inquiry.scopes, ip: inquiry.ip }
        : { scopes: inquiry.scopes, project: inquiry.project, ip: inquiry.ip };
    const verdict = this.verifier.verify(secret, requirement);
    return verdict instanceof Promise
      ? verdict.then((late) => this.#conclude(inquiry, secret, late, options))
      : this.#conclude(inquiry, secret, verdict, options);
  }

  /** About several inquiries of one request: all must be allowed, and the verdict is counted once, under the last. */
  async verifyAll(inquiries: readonly Inquiry[], secret: string): Promise<Decision> {
    for (const inquiry of inquiries.slice(0, -1)) {
      const decision = await this.verify(inquiry, secret, { preliminary: true });
      if (!decision.allowed) return decision;
    }
    return this.verify(inquiries.at(-1)!, secret);
  }

  #conclude(inquiry: Inquiry, secret: string, verdict: Verdict, options: DecideOptions): Decision | Promise<Decision> {
    if (!verdict.allowed) return this.deny(inquiry, verdict.reason, verdict.tokenId);
    const { principal } = verdict;
    if (options.preliminary) return { allowed: true, principal, secret };
    if (principal.rates.length > 0) {
      return this.limits.consumeAll(principal.tokenId, principal.rates, inquiry.uses).then((rate) => {
        if (!rate.allowed) return this.deny(inquiry, 'rate_limited', principal.tokenId, { headers: rateHeaders(rate) });
        this.accounts.count(principal.tokenId, inquiry.route, 'allowed', inquiry.ip, inquiry.userAgent);
        return { allowed: true, principal, secret, rate };
      });
    }
    this.accounts.count(principal.tokenId, inquiry.route, 'allowed', inquiry.ip, inquiry.userAgent);
    return { allowed: true, principal, secret };
  }

  /** Denies what the verifier has not denied itself, and counts that. */
  deny(
    inquiry: Inquiry,
    reason: DenialReason,
    tokenId: string | undefined,
    told: Pick<ErrorResponse, 'headers'> & { detail?: string } = {},
  ): Extract<Decision, { allowed: false }> {
    if (tokenId !== undefined) this.accounts.count(tokenId, inquiry.route, reason, inquiry.ip, inquiry.userAgent);
    this.#keepDenial(inquiry, reason, tokenId);
    const code = codeForDenial(reason);
    const { headers, detail = detailOf(reason, code, inquiry) } = told;
    return {
      allowed: false,
      reason,
      refusal: { code, detail, scopes: inquiry.scopes, ...(headers ? { headers } : {}) },
    };
  }

  #keepDenial({ requestId, route, method, ip }: Inquiry, reason: DenialReason, tokenId: string | undefined): void {
    this.accounts.deny({ requestId, reason, tokenId: tokenId ?? null, route, method, ip });
  }

  /** No secret came: there is no header with one, or it cannot be read (RFC 6750 section 3.1 tells these apart). */
  withoutSecret(inquiry: Inquiry, read: Exclude<ReadAuthorization, string>): Extract<Decision, { allowed: false }> {
    this.#keepDenial(inquiry, 'malformed', undefined);
    const refusal: ErrorResponse =
      read === MALFORMED
        ? { code: 'invalid_request', detail: 'The Authorization header must be "Bearer", one space and the token.' }
        : { code: 'unauthenticated', detail: 'Send a token as "Authorization: Bearer <token>".' };
    return { allowed: false, reason: 'malformed', refusal };
  }
}

function detailOf(reason: DenialReason, code: ErrorCode, { scopes, project }: Inquiry): string {
  const fixed = DETAILS[reason];
  if (fixed) return fixed;
  if (code !== 'insufficient_scope')
    return 'The token is not accepted. Its owner or an administrator can look the requestId up.';
  const where = project === undefined ? '' : ', or not in this project';
  return `The token lacks a right that this request needs${where}.${scopes.length ? ` Needed: ${scopes.join(' ')}.` : ''}`;
}
