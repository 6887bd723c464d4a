import type { RateLimit, Receipt, RevocationReason } from '@latchkey/contracts';
import { canonicalAddress } from '@latchkey/verifier';
import { Column, Entity, PrimaryColumn } from 'typeorm';
import { badField } from '../http/index.js';

type CreatorType = 'user' | 'token' | 'system';

/** A token as stored; of its secret only an HMAC. */
@Entity({ name: 'tokens' })
export class TokenEntity {
  @PrimaryColumn({ type: 'uuid' }) id!: string;
  /** HMAC-SHA-256, under a pepper, of the SHA-256 of the secret. */
  @Column({ type: 'bytea', select: false }) hash!: Buffer;
  /** Of the pepper of its hash; null: written before there were ids. */
  @Column({ name: 'pepper_id', type: 'smallint', nullable: true, select: false }) pepperId!: number | null;
  @Column({ type: 'text' }) kind!: 'pat' | 'prj';
  @Column({ type: 'text' }) name!: string;
  @Column({ type: 'text' }) description!: string;
  @Column({ type: 'text' }) start!: string;
  @Column({ name: 'owner_user_id', type: 'uuid', nullable: true }) ownerUserId!: string | null;
  @Column({ name: 'project_id', type: 'uuid', nullable: true }) projectId!: string | null;
  @Column({ name: 'created_by_type', type: 'text' }) createdByType!: CreatorType;
  @Column({ name: 'created_by_id', type: 'uuid', nullable: true }) createdById!: string | null;
  /** The tokens that this one derives from, nearest first. */
  @Column({ type: 'uuid', array: true }) ancestors!: string[];
  @Column({ type: 'text', array: true }) scopes!: string[];
  /** Canonical CIDRs; empty: any address. */
  @Column({ name: 'allowed_ips', type: 'text', array: true }) allowedIps!: string[];
  @Column({ name: 'rate_limit', type: 'integer', nullable: true }) rateLimit!: number | null;
  @Column({ name: 'rate_window_seconds', type: 'integer', nullable: true }) rateWindowSeconds!: number | null;
  /** Bucket that its rate limit counts in; null: its own id. A successor continues its predecessor's count. */
  @Column({ name: 'rate_bucket', type: 'uuid', nullable: true }) rateBucket!: string | null;
  @Column({ type: 'jsonb' }) metadata!: Record<string, string>;
  @Column({ name: 'created_at', type: 'timestamptz' }) createdAt!: Date;
  @Column({ name: 'expires_at', type: 'timestamptz', nullable: true }) expiresAt!: Date | null;
  /** When a rotated token expires in favour of its successor. */
  @Column({ name: 'overlap_ends_at', type: 'timestamptz', nullable: true }) overlapEndsAt!: Date | null;
  @Column({ name: 'disabled_at', type: 'timestamptz', nullable: true }) disabledAt!: Date | null;
  /** Whether an ancestor is disabled: for lists only; checks read the ancestors themselves. */
  @Column({ name: 'disabled_above', type: 'boolean' }) ancestorDisabled!: boolean;
  @Column({ name: 'revoked_at', type: 'timestamptz', nullable: true }) revokedAt!: Date | null;
  @Column({ name: 'revoked_by_type', type: 'text', nullable: true }) revokedByType!: CreatorType | null;
  @Column({ name: 'revoked_by_id', type: 'uuid', nullable: true }) revokedById!: string | null;
  @Column({ name: 'revocation_reason', type: 'text', nullable: true }) revocationReason!: RevocationReason | null;
  @Column({ name: 'revocation_comment', type: 'text', nullable: true }) revocationComment!: string | null;
  @Column({ name: 'rotated_from', type: 'uuid', nullable: true }) rotatedFrom!: string | null;
  /** The first token of its family: tokens that were shown one another's secrets; null: it was shown to no token. */
  @Column({ name: 'family_id', type: 'uuid', nullable: true }) familyId!: string | null;
  @Column({ name: 'rotated_to', type: 'uuid', nullable: true }) rotatedTo!: string | null;
  /** Of the last change that needed one. */
  @Column({ name: 'invalidation_id', type: 'uuid', nullable: true }) invalidationId!: string | null;
  @Column({ type: 'jsonb', nullable: true }) receipt!: Receipt | null;
  /** Below the current one: revoked with all tokens, whether or not `revokedAt` is written yet. */
  @Column({ type: 'integer' }) generation!: number;
}

/** Columns that only later changes write, with their defaults in PostgreSQL. */
export const AS_ISSUED = {
  rateBucket: null,
  overlapEndsAt: null,
  disabledAt: null,
  ancestorDisabled: false,
  revokedAt: null,
  revokedByType: null,
  revokedById: null,
  revocationReason: null,
  revocationComment: null,
  rotatedTo: null,
  invalidationId: null,
  receipt: null,
} satisfies Partial<TokenEntity>;

/** A token to be inserted, without its hash. */
export type NewToken = Omit<TokenEntity, 'hash' | 'pepperId' | keyof typeof AS_ISSUED>;

type Labels = Pick<TokenEntity, 'name' | 'description' | 'metadata'>;

/** Columns that describe a token and bound nothing: as requested, else as before. */
export const labelsOf = (
  requested: { [K in keyof Labels]?: Labels[K] | undefined },
  before: Labels = { name: '', description: '', metadata: {} },
): Labels => ({
  name: requested.name ?? before.name,
  description: requested.description ?? before.description,
  metadata: requested.metadata ?? before.metadata,
});

export const rateOf = ({
  rateLimit,
  rateWindowSeconds,
}: Pick<TokenEntity, 'rateLimit' | 'rateWindowSeconds'>): RateLimit | null =>
  rateLimit === null || rateWindowSeconds === null ? null : { limit: rateLimit, windowSeconds: rateWindowSeconds };

export const rateColumns = (rate: RateLimit | null): Pick<TokenEntity, 'rateLimit' | 'rateWindowSeconds'> => ({
  rateLimit: rate?.limit ?? null,
  rateWindowSeconds: rate?.windowSeconds ?? null,
});

/** Canonical CIDRs without duplicates. @throws ApiError naming an entry that is neither an address nor a CIDR */
export function canonicalAddresses(input: readonly string[], field = 'allowedIps'): string[] {
  const all = input.map((text, index) => {
    const canonical = canonicalAddress(text);
    if (!canonical) throw badField(`${field}.${index}`, 'must be an IP address or a CIDR such as 10.0.0.0/8');
    return canonical;
  });
  return [...new Set(all)];
}

/**
 * The columns of a new token that a request sets.
 * @param path of the token in the request, with a trailing dot
 * @throws ApiError naming an invalid address
 */
export const requestedColumns = (
  requested: Parameters<typeof labelsOf>[0] & {
    scopes: string[];
    allowedIps: readonly string[];
    rateLimit?: RateLimit | null | undefined;
  },
  path = '',
) => ({
  ...labelsOf(requested),
  ...rateColumns(requested.rateLimit ?? null),
  scopes: requested.scopes,
  allowedIps: canonicalAddresses(requested.allowedIps, `${path}allowedIps`),
});

/** When it expires, by its expiry or the end of its overlap; null: never. */
export function expiryOf(token: Pick<TokenEntity, 'expiresAt' | 'overlapEndsAt'>): Date | null {
  const { expiresAt, overlapEndsAt } = token;
  if (expiresAt === null || overlapEndsAt === null) return expiresAt ?? overlapEndsAt;
  return new Date(Math.min(expiresAt.getTime(), overlapEndsAt.getTime()));
}
