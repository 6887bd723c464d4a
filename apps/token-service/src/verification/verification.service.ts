import type { DenialReason, VerifyRequest, VerifyResponse } from '@latchkey/contracts';
import { type Clock, newId, type RateState } from '@latchkey/runtime';
import { hashSecret, parse } from '@latchkey/token-format';
import { evaluateToken, type Principal, type Requirement, type Verdict } from '@latchkey/verifier';
import { Inject, Injectable } from '@nestjs/common';
import { CLOCK, CONFIG, type TokenServiceConfig } from '../config.js';
import { RatesService } from '../http/index.js';
import { UsageService, type Where } from '../usage/index.js';
import { OwnVerifierService } from './own-verifier.service.js';
import { type NamedSnapshot, SnapshotService } from './snapshot.service.js';

export type Verification =
  | { allowed: true; known: NamedSnapshot; principal: Principal }
  | { allowed: false; reason: DenialReason; tokenId?: string; rate?: RateState };

/**
 * Decides about a token as every verifier does: from the current state of PostgreSQL, and where a name says `recall` or
 * `ForRpc` from memory too, under a lease of this process.
 */
@Injectable()
export class VerificationService {
  constructor(
    private readonly snapshots: SnapshotService,
    private readonly usage: UsageService,
    private readonly rates: RatesService,
    private readonly own: OwnVerifierService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  /** The decision only: nothing is counted. */
  async verify(secret: string, requirement: Requirement): Promise<Verification> {
    const parsed = parse(secret, this.config.TOKEN_PREFIX);
    if (!parsed.ok) return { allowed: false, reason: parsed.reason };
    const known = await this.snapshots.byHash(hashSecret(secret));
    const verdict = evaluateToken(known?.snapshot ?? null, requirement, this.clock.wallMs());
    return verdict.allowed ? { allowed: true, known: known!, principal: verdict.principal } : verdict;
  }

  /** A use of the token: decided, checked against its rate limits, and counted. */
  async use(secret: string, requirement: Requirement, where: Where): Promise<Verification> {
    const decided = await this.verify(secret, requirement);
    const verification = decided.allowed ? await this.#withinRate(decided) : decided;
    this.usage.count(verification, where);
    return verification;
  }

  /**
   * The decision of `use`, from memory and not counted yet; undefined: `use` is needed, because nothing is in memory or
   * because a rate limit applies. It accepts nothing that was revoked effectively before the call.
   */
  recall(secret: string, requirement: Requirement): Verdict | undefined {
    const verdict = this.own.recall(secret, requirement);
    return verdict?.allowed && verdict.principal.rates.length > 0 ? undefined : verdict;
  }

  /** So that `recall` can decide about a token that was accepted, while there is a lease. */
  remember(secret: string, requirement: Requirement): void {
    this.own.remember(secret, requirement);
  }

  /** Counts a use that `recall` has decided. */
  count(verdict: Verdict, where: Where): void {
    this.usage.count(verdict, where);
  }

  /** The response of `verifyForRpc` from memory, without waiting; undefined, and nothing counted: that one is needed. */
  recallForRpc(request: VerifyRequest): VerifyResponse | undefined {
    const verdict = this.recall(request.token, requirementOf(request));
    if (verdict === undefined) return undefined;
    this.own.noteCheck('memory');
    return this.#respond(request, verdict);
  }

  /** A use of a token as a gRPC response, counted under the route that the caller names. */
  async verifyForRpc(request: VerifyRequest): Promise<VerifyResponse> {
    const requirement = requirementOf(request);
    let verdict = this.own.recall(request.token, requirement);
    this.own.noteCheck(verdict ? 'memory' : 'database');
    if (verdict === undefined) {
      verdict =
        (await this.own.verdictOf(request.token, requirement)) ?? (await this.verify(request.token, requirement));
    }
    if (!verdict.allowed || verdict.principal.rates.length === 0) return this.#respond(request, verdict);
    const { tokenId, rates } = verdict.principal;
    const rate = await this.rates.use(tokenId, rates);
    return rate.allowed
      ? this.#respond(request, verdict)
      : this.#respond(request, { allowed: false, reason: 'rate_limited', tokenId }, rate);
  }

  /** Counts the verdict. */
  #respond(request: VerifyRequest, verdict: Verdict, rate?: RateState): VerifyResponse {
    const { ip, userAgent } = request;
    const route = request.route || RPC_ROUTE;
    this.usage.count(verdict, { route, ip, userAgent });
    if (!verdict.allowed) {
      const { reason, tokenId } = verdict;
      const requestId = newId();
      this.usage.deny({ requestId, reason, tokenId: tokenId ?? null, route, method: 'Verify', ip });
      const retryAfterSeconds = rate ? Math.max(1, rate.resetSeconds) : 0;
      return { ...EMPTY_RESPONSE, denial: reason, tokenId: tokenId ?? '', requestId, retryAfterSeconds };
    }
    const { tokenId, kind, ownerType, ownerId, scopes, expiresAtMs } = verdict.principal;
    return {
      allowed: true,
      denial: '',
      tokenId,
      owner: `${ownerType}:${ownerId}`,
      project: kind === 'prj' ? ownerId : '',
      scopes: [...scopes],
      expiresAt: expiresAtMs ? new Date(expiresAtMs).toISOString() : '',
      requestId: '',
      retryAfterSeconds: 0,
    };
  }

  async #withinRate(allowed: Extract<Verification, { allowed: true }>): Promise<Verification> {
    const { tokenId, rates } = allowed.principal;
    if (rates.length === 0) return allowed;
    const rate = await this.rates.use(tokenId, rates);
    return rate.allowed ? allowed : { allowed: false, reason: 'rate_limited', tokenId, rate };
  }
}

function requirementOf({ scopes, project, ip }: VerifyRequest): Requirement {
  return { scopes, ...(project && { project }), ...(ip && { ip }) };
}

/** The route of verifications over gRPC when the caller names none. */
const RPC_ROUTE = 'rpc';

const EMPTY_RESPONSE: VerifyResponse = {
  allowed: false,
  denial: '',
  tokenId: '',
  owner: '',
  project: '',
  scopes: [],
  expiresAt: '',
  requestId: '',
  retryAfterSeconds: 0,
};
