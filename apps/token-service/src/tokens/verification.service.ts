import type { DenialReason, RpcRateLimit, TokenFacts, VerifyRequest, VerifyResponse } from '@latchkey/contracts';
import type { Clock } from '@latchkey/runtime';
import { hashSecret, parse } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import { CLOCK, CONFIG, type TokenServiceConfig } from '../config.js';
import { UsageService } from '../usage/usage.service.js';
import { isAllowedAddress } from './addresses.js';
import { FactsService, type NamedFacts } from './facts.service.js';

/** What a request needs besides a good token. */
export interface Requirement {
  /** All of them. */
  scopes?: readonly string[];
  /** The project that the request is about. */
  project?: string | undefined;
  /** The caller's address; allowed addresses are not checked without. */
  ip?: string | undefined;
}

/** Outcomes are data. */
export type Verification =
  | { allowed: true; known: NamedFacts; scopes: readonly string[] }
  | { allowed: false; reason: DenialReason; tokenId?: string; rateLimit?: RpcRateLimit };

/** Decides about a token from PostgreSQL as it stands at this moment, never from memory. */
@Injectable()
export class VerificationService {
  constructor(
    private readonly facts: FactsService,
    private readonly usage: UsageService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  async verify(secret: string, requirement: Requirement): Promise<Verification> {
    const parsed = parse(secret, this.config.TOKEN_PREFIX);
    if (!parsed.ok) return { allowed: false, reason: parsed.reason };
    const known = await this.facts.byHash(hashSecret(secret));
    if (!known) return { allowed: false, reason: 'unknown' };
    const { facts } = known;
    const scopes = scopesIn(facts, requirement.project);
    const reason = this.#denial(facts, scopes, requirement);
    if (reason) return { allowed: false, reason, tokenId: facts.id };
    return { allowed: true, known, scopes: scopes ?? [] };
  }

  /** The same as the gRPC door answers it, counted under the route that the caller names. */
  async answer(request: VerifyRequest): Promise<VerifyResponse> {
    const verification = await this.verify(request.token, {
      scopes: request.scopes,
      project: request.project || undefined,
      ip: request.ip || undefined,
    });
    this.usage.count(verification, { route: request.route || 'rpc', ip: request.ip, userAgent: request.userAgent });
    if (!verification.allowed) return { ...NOBODY, denial: verification.reason, tokenId: verification.tokenId ?? '' };
    const { facts } = verification.known;
    return {
      allowed: true,
      denial: '',
      tokenId: facts.id,
      owner: `${facts.ownerType}:${facts.ownerId}`,
      project: facts.project,
      scopes: [...verification.scopes],
      expiresAt: facts.expiresAtMs ? new Date(facts.expiresAtMs).toISOString() : '',
    };
  }

  #denial(facts: TokenFacts, scopes: readonly string[] | null, requirement: Requirement): DenialReason | undefined {
    if (facts.denial) return facts.denial as DenialReason;
    if (facts.expiresAtMs > 0 && facts.expiresAtMs <= this.clock.wallMs()) return 'expired';
    if (requirement.ip !== undefined && !isAllowedAddress(facts.allowedIps, requirement.ip))
      return 'address_not_allowed';
    if (scopes === null) return 'wrong_project';
    return requirement.scopes?.every((scope) => scopes.includes(scope)) === false ? 'insufficient_scope' : undefined;
  }
}

/** What the token may do in the project, or without one outside any; null where its owner does not belong. */
export function scopesIn(facts: TokenFacts, project: string | undefined): readonly string[] | null {
  if (project === undefined || facts.allProjects) return facts.scopes;
  return facts.grants.find((grant) => grant.project === project)?.scopes ?? null;
}

const NOBODY: Omit<VerifyResponse, 'denial' | 'tokenId'> = {
  allowed: false,
  owner: '',
  project: '',
  scopes: [],
  expiresAt: '',
};
