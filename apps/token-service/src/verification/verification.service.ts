import type { DenialReason, VerifyRequest, VerifyResponse } from '@latchkey/contracts';
import { type Clock, newId, type RateState } from '@latchkey/runtime';
import { hashSecret, parse } from '@latchkey/token-format';
import { evaluateToken, type Principal, type Requirement } from '@latchkey/verifier';
import { Inject, Injectable } from '@nestjs/common';
import { CLOCK, CONFIG, type TokenServiceConfig } from '../config.js';
import { RatesService } from '../http/index.js';
import { UsageService, type Where } from '../usage/index.js';
import { type NamedSnapshot, SnapshotService } from './snapshot.service.js';

export type Verification =
  | { allowed: true; known: NamedSnapshot; principal: Principal }
  | { allowed: false; reason: DenialReason; tokenId?: string; rate?: RateState };

/**
 * Decides about a token as every verifier does, but from the current state of PostgreSQL, never from memory.
 */
@Injectable()
export class VerificationService {
  constructor(
    private readonly snapshots: SnapshotService,
    private readonly usage: UsageService,
    private readonly rates: RatesService,
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

  /** The same as a gRPC response, counted under the route that the caller names. */
  async verifyForRpc(request: VerifyRequest): Promise<VerifyResponse> {
    const { scopes, project, ip, userAgent } = request;
    const requirement = { scopes, ...(project && { project }), ...(ip && { ip }) };
    const route = request.route || RPC_ROUTE;
    const verification = await this.use(request.token, requirement, { route, ip, userAgent });
    if (!verification.allowed) {
      const { reason, tokenId, rate } = verification;
      const requestId = newId();
      this.usage.deny({ requestId, reason, tokenId: tokenId ?? null, route, method: 'Verify', ip });
      const retryAfterSeconds = rate ? Math.max(1, rate.resetSeconds) : 0;
      return { ...EMPTY_RESPONSE, denial: reason, tokenId: tokenId ?? '', requestId, retryAfterSeconds };
    }
    const { snapshot } = verification.known;
    return {
      ...EMPTY_RESPONSE,
      allowed: true,
      tokenId: snapshot.id,
      owner: `${snapshot.ownerType}:${snapshot.ownerId}`,
      project: snapshot.project,
      scopes: [...verification.principal.scopes],
      expiresAt: snapshot.expiresAtMs ? new Date(snapshot.expiresAtMs).toISOString() : '',
    };
  }

  async #withinRate(allowed: Extract<Verification, { allowed: true }>): Promise<Verification> {
    const { tokenId, rates } = allowed.principal;
    if (rates.length === 0) return allowed;
    const rate = await this.rates.use(tokenId, rates);
    return rate.allowed ? allowed : { allowed: false, reason: 'rate_limited', tokenId, rate };
  }
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
