import { type Metadata, status } from '@grpc/grpc-js';
import {
  type BatchResponse,
  LIMITS,
  type LookupResponse,
  usageTicket,
  type VerifyRequest,
  type VerifyResponse,
} from '@latchkey/contracts';
import { Controller, Inject } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { batchLimit, CallableBy, callerName, callerOf, InternalRpc, refuse } from '../rpc/index.js';
import { SnapshotService, VerificationService } from '../verification/index.js';
import { ClosuresService } from './closures.service.js';
import { ExpiryService } from './expiry.service.js';
import { IdleService } from './idle.service.js';
import { RevocationsService } from './revocations.service.js';
import { RevokeAllService } from './revoke-all.service.js';

/** gRPC endpoints of tokens: `latchkey.v1.Tokens`, without the leases. */
@Controller()
export class TokensRpc {
  readonly #usageSecret: Buffer;

  constructor(
    private readonly verification: VerificationService,
    private readonly snapshots: SnapshotService,
    @Inject(CONFIG) config: Pick<TokenServiceConfig, 'USAGE_SECRET'>,
  ) {
    this.#usageSecret = Buffer.from(config.USAGE_SECRET[0]);
  }

  @GrpcMethod('Tokens', 'Verify')
  @CallableBy('gateway', 'token')
  verify(request: VerifyRequest): Promise<VerifyResponse> {
    return this.verification.verifyForRpc(request);
  }

  @GrpcMethod('Tokens', 'VerifyBatch')
  @CallableBy('gateway', 'token')
  async verifyBatch({ requests }: { requests: VerifyRequest[] }): Promise<{ responses: VerifyResponse[] }> {
    if (requests.length > LIMITS.verifyBatchMax)
      throw refuse(status.INVALID_ARGUMENT, `requests: at most ${LIMITS.verifyBatchMax} at once`);
    return { responses: await Promise.all(requests.map((request) => this.verification.verifyForRpc(request))) };
  }

  @GrpcMethod('Tokens', 'Lookup')
  @CallableBy('gateway', 'token')
  async lookup({ hash }: { hash: string }, metadata: Metadata): Promise<LookupResponse> {
    if (!/^[A-Za-z0-9_-]{43}$/.test(hash))
      throw refuse(status.INVALID_ARGUMENT, 'hash: must be a SHA-256 in base64url, 43 characters');
    const found = await this.snapshots.lookup(hash);
    const caller = callerOf(metadata);
    if (caller.type !== 'token' || !found.token) return found;
    const tokenId = found.token.id;
    return { ...found, usageTicket: usageTicket(this.#usageSecret, { caller: callerName(caller), tokenId }) };
  }
}

const BATCH_MAX = 1_000;
/** Exposures that one call continues: each is many batches. */
const EXPOSURES_MAX = 10;

/** The calls of jobs for tokens: this module's part of `latchkey.internal.v1.Maintenance`. */
@Controller()
export class TokensMaintenanceRpc {
  constructor(
    private readonly revocations: RevocationsService,
    private readonly expiry: ExpiryService,
    private readonly idle: IdleService,
    private readonly closures: ClosuresService,
    private readonly allTokens: RevokeAllService,
  ) {}

  @InternalRpc('ExpireDue')
  expireDue({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.expiry.expireDue(batchLimit(limit, BATCH_MAX));
  }

  @InternalRpc('EndOverlaps')
  endOverlaps({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.revocations.endOverlaps(batchLimit(limit, BATCH_MAX));
  }

  @InternalRpc('RevokeIdle')
  revokeIdle({ limit }: { limit: number }): Promise<BatchResponse> {
    return this.idle.revokeIdle(batchLimit(limit, BATCH_MAX));
  }

  @InternalRpc('ContinueExposures')
  async continueExposures({ limit }: { limit: number }): Promise<BatchResponse> {
    const [exposures] = await Promise.all([
      this.closures.continueAbandoned(batchLimit(limit, EXPOSURES_MAX)),
      this.allTokens.continueMarking(),
    ]);
    return exposures;
  }
}
