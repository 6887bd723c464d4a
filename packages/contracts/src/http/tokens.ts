import { z } from 'zod';
import { LIMITS } from '../limits.js';
import { scopeSchema } from '../scopes.js';
import { auditEventSchema } from './audit.js';
import {
  cursorSchema,
  effectSchema,
  idSchema,
  limitSchema,
  lineSchema,
  page,
  receiptSchema,
  textSchema,
  timeInputSchema,
  timeSchema,
} from './common.js';

export const tokenKindSchema = z.enum(['pat', 'prj']);
export const tokenStatusSchema = z.enum(['active', 'expired', 'revoked', 'disabled']);
export type TokenStatus = z.infer<typeof tokenStatusSchema>;

export const revocationReasonSchema = z.enum([
  'exposed',
  'superseded',
  'no_longer_needed',
  'owner_left',
  'policy',
  'unspecified',
]);
export type RevocationReason = z.infer<typeof revocationReasonSchema>;

/** An IPv4 or IPv6 address or CIDR; validated in full by the service, which returns it in canonical form. */
export const cidrSchema = z
  .string()
  .min(2)
  .max(49)
  .regex(/^[0-9a-fA-F.:]+(\/\d{1,3})?$/, 'must be an IP address or a CIDR such as 10.0.0.0/8');

export const rateLimitSchema = z
  .strictObject({
    limit: z.int().min(1).max(LIMITS.rateLimitMax),
    windowSeconds: z.int().min(1).max(LIMITS.rateLimitWindowSecondsMax),
  })
  .meta({ id: 'RateLimit' });
export type RateLimit = z.infer<typeof rateLimitSchema>;

export const metadataSchema = z
  .record(
    z.string().regex(/^[A-Za-z][A-Za-z0-9_.-]{0,49}$/, 'names are letters, digits, "_", "." and "-"'),
    textSchema(LIMITS.metadataValueLengthMax),
  )
  .refine((m) => Object.keys(m).length <= LIMITS.metadataEntriesMax, `at most ${LIMITS.metadataEntriesMax} entries`);

export const tokenSchema = z
  .object({
    id: idSchema,
    name: z.string(),
    description: z.string(),
    kind: tokenKindSchema,
    owner: z.object({
      type: z.enum(['user', 'project']),
      id: idSchema,
      name: z.string(),
      disabled: z.boolean().meta({
        description: 'a person who is disabled, or a project that is closed: no token of theirs is accepted',
      }),
    }),
    createdBy: z.object({ type: z.enum(['user', 'token', 'system']), id: idSchema.nullable(), name: z.string() }),
    scopes: z.array(z.string()),
    start: z.string().meta({ examples: ['lk_pat_3xQ7'] }),
    status: tokenStatusSchema,
    createdAt: timeSchema,
    expiresAt: timeSchema.nullable(),
    lastUsedAt: timeSchema.nullable(),
    lastUsedIp: z.string().nullable(),
    usageCount: z.int(),
    revokedAt: timeSchema.nullable(),
    revokedBy: z
      .object({ type: z.enum(['user', 'token', 'system']), id: idSchema.nullable(), name: z.string() })
      .nullable(),
    revocationReason: revocationReasonSchema.nullable(),
    rotatedFrom: idSchema.nullable(),
    rotatedTo: idSchema.nullable(),
    allowedIps: z.array(z.string()),
    rateLimit: rateLimitSchema.nullable(),
    metadata: z.record(z.string(), z.string()),
    parentId: idSchema
      .nullable()
      .meta({ description: 'the token that this one was derived from, and is revoked with' }),
    receipt: receiptSchema.nullable().meta({ description: 'of the last change that narrowed its rights' }),
  })
  .meta({ id: 'Token' });
export type Token = z.infer<typeof tokenSchema>;

export const issuedTokenSchema = tokenSchema
  .extend({
    secret: z.string().meta({ description: 'shown in this response and never again' }),
  })
  .meta({ id: 'IssuedToken' });
export type IssuedToken = z.infer<typeof issuedTokenSchema>;

const scopesInput = z
  .array(scopeSchema)
  .max(LIMITS.scopesPerTokenMax)
  .refine((s) => new Set(s).size === s.length, 'must not repeat');
const allowedIpsInput = z.array(cidrSchema).max(LIMITS.allowedIpsPerTokenMax);
const expiresInSecondsInput = z.int().min(1).max(LIMITS.lifetimeSecondsMax);

export const issueTokenBody = z
  .strictObject({
    name: lineSchema(LIMITS.nameLengthMax),
    description: textSchema(LIMITS.descriptionLengthMax).optional(),
    kind: tokenKindSchema.default('pat'),
    projectId: idSchema.optional(),
    scopes: scopesInput.default([]),
    expiresAt: timeInputSchema.optional(),
    expiresInSeconds: expiresInSecondsInput.optional(),
    allowedIps: allowedIpsInput.default([]),
    rateLimit: rateLimitSchema.nullable().optional(),
    metadata: metadataSchema.optional(),
  })
  .refine((b) => !(b.expiresAt && b.expiresInSeconds), {
    path: ['expiresAt'],
    message: 'give expiresAt or expiresInSeconds, not both',
  })
  .refine((b) => (b.kind === 'prj') === (b.projectId !== undefined), {
    path: ['projectId'],
    message: 'a project token (kind "prj") needs it, a personal one has none',
  })
  .meta({ id: 'IssueToken' });
export type IssueTokenBody = z.infer<typeof issueTokenBody>;

export const patchTokenBody = z
  .strictObject({
    name: lineSchema(LIMITS.nameLengthMax).optional(),
    description: textSchema(LIMITS.descriptionLengthMax).optional(),
    scopes: scopesInput.optional(),
    allowedIps: allowedIpsInput.optional(),
    rateLimit: rateLimitSchema.nullable().optional(),
    metadata: metadataSchema.optional(),
    disabled: z.boolean().optional(),
  })
  .refine((b) => Object.keys(b).length > 0, 'name at least one field to change')
  .meta({ id: 'PatchToken' });
export type PatchTokenBody = z.infer<typeof patchTokenBody>;

/** By time of creation, by name (case-insensitive), by expiry (none: last); `-` reverses. */
export const TOKEN_SORTS = ['created', '-created', 'name', '-name', 'expires', '-expires'] as const;
export type TokenSort = (typeof TOKEN_SORTS)[number];

export const listTokensQuery = z.strictObject({
  projectId: idSchema.optional(),
  owner: z.union([z.literal('me'), idSchema]).optional(),
  status: tokenStatusSchema.optional(),
  q: lineSchema(LIMITS.searchLengthMax).optional(),
  sort: z.enum(TOKEN_SORTS).default('-created'),
  limit: limitSchema,
  cursor: cursorSchema.optional(),
});
export type ListTokensQuery = z.infer<typeof listTokensQuery>;
export const tokenPage = page(tokenSchema).meta({ id: 'TokenPage' });

export const revokeTokenBody = z
  .strictObject({
    reason: revocationReasonSchema.default('unspecified'),
    comment: textSchema(LIMITS.commentLengthMax).optional(),
  })
  .meta({ id: 'RevokeToken' });
export type RevokeTokenBody = z.infer<typeof revokeTokenBody>;
/** The response to PATCH and revocation: the token, and whether the change is effective. */
export const tokenEffectSchema = effectSchema.extend({ token: tokenSchema }).meta({ id: 'TokenEffect' });
export type TokenEffect = z.infer<typeof tokenEffectSchema>;

/** How many tokens a revocation has revoked so far; each counts in `tokens`, and at most once more. */
export const endedCountsSchema = z
  .object({
    tokens: z.int().meta({ description: 'in all' }),
    successors: z.int().meta({ description: 'that an exposed token got by rotating itself' }),
    descendants: z.int().meta({ description: 'that were derived from one of them' }),
    shown: z.int().meta({ description: 'whose secret was shown to an exposed token that rotated another token' }),
  })
  .meta({ id: 'EndedCounts' });
export type EndedCounts = z.infer<typeof endedCountsSchema>;

/** Changes made by exposed tokens before their revocation: they remain, for people to review. */
export const alsoChangedSchema = z
  .object({
    items: z
      .array(
        auditEventSchema
          .pick({ id: true, at: true, action: true, tokenId: true, projectId: true, subject: true })
          .extend({
            by: z.object({ id: idSchema, name: z.string() }).meta({ description: 'the token that made the change' }),
          }),
      )
      .max(100)
      .meta({ description: 'newest first, those that the caller has permission to see' }),
    others: z.int().meta({ description: 'further ones, among the last thousand' }),
    audit: z.string().meta({ description: 'where all events of the revoked token are listed, with audit:read' }),
  })
  .meta({ id: 'AlsoChanged' });
export type AlsoChanged = z.infer<typeof alsoChangedSchema>;

/** The response to a revocation. While more tokens are being revoked, `effective` is false. */
export const revokedTokenSchema = tokenEffectSchema
  .extend({
    ended: endedCountsSchema,
    alsoChanged: alsoChangedSchema.optional().meta({ description: 'with reason `exposed`' }),
  })
  .meta({ id: 'RevokedToken' });
export type RevokedToken = z.infer<typeof revokedTokenSchema>;
/** The same for many tokens. */
export const revokedTokensSchema = effectSchema.extend({ ended: endedCountsSchema }).meta({ id: 'RevokedTokens' });
export type RevokedTokens = z.infer<typeof revokedTokensSchema>;

/** The tokens that match every member. Members as in `GET /v1/tokens`, and `createdBefore` and `prefix`. */
export const tokenFilterSchema = z
  .strictObject({
    projectId: idSchema.optional(),
    owner: listTokensQuery.shape.owner,
    createdBefore: timeInputSchema.optional(),
    prefix: z
      .string()
      .min(1)
      .max(25, 'the first characters of the secret, never the whole')
      .regex(/^[a-z][0-9A-Za-z_]*$/, 'the first characters of the secret, such as lk_pat_3x')
      .optional()
      .meta({ description: 'of the secret, at most as long as `start`' }),
    status: tokenStatusSchema.optional(),
  })
  .refine((f) => Object.keys(f).length > 0, 'name at least one of projectId, owner, createdBefore, prefix, status')
  .meta({ id: 'TokenFilter' });
export type TokenFilter = z.infer<typeof tokenFilterSchema>;

export const revokeTokensBody = z
  .strictObject({
    filter: tokenFilterSchema,
    reason: revocationReasonSchema,
    comment: textSchema(LIMITS.commentLengthMax).optional(),
    dryRun: z.boolean().default(false).meta({ description: 'returns what would be revoked, and changes nothing' }),
    expect: z
      .int()
      .min(0)
      .max(LIMITS.revokeManyMax)
      .optional()
      .meta({ description: '`matched` of the preview: when more match now, nothing is revoked (409)' }),
  })
  .meta({ id: 'RevokeTokens' });
export type RevokeTokensBody = z.infer<typeof revokeTokensBody>;

const matchedSchema = z
  .int()
  .meta({ description: 'tokens not yet revoked that matched the filter when it was evaluated' });
export const revocationPreviewSchema = z
  .object({
    matched: matchedSchema,
    tokens: z
      .array(tokenSchema)
      .max(LIMITS.revokePreviewMax)
      .meta({ description: 'the newest of them, those that you have permission to read' }),
  })
  .meta({ id: 'RevocationPreview' });
export type RevocationPreview = z.infer<typeof revocationPreviewSchema>;
/** For the tokens that a filter matches. A token issued after its evaluation is not among them. */
export const revokedManySchema = revokedTokensSchema
  .extend({
    matched: matchedSchema,
    batch: idSchema
      .nullable()
      .meta({ description: 'in `details` of each audit event; null: there was nothing to revoke' }),
  })
  .meta({ id: 'RevokedMany' });
export type RevokedMany = z.infer<typeof revokedManySchema>;

export const revokeAllTokensBody = z
  .strictObject({
    reason: revocationReasonSchema,
    comment: textSchema(LIMITS.commentLengthMax).optional(),
    confirm: z.literal('revoke everything'),
  })
  .meta({ id: 'RevokeAllTokens' });
export type RevokeAllTokensBody = z.infer<typeof revokeAllTokensBody>;
export const revokedAllSchema = effectSchema.extend({}).meta({ id: 'RevokedAll' });

export const rotateTokenBody = z
  .strictObject({
    overlapSeconds: z.int().min(0).max(LIMITS.overlapSecondsMax).default(0),
    expiresAt: timeInputSchema.nullable().optional(),
    expiresInSeconds: expiresInSecondsInput.optional(),
  })
  .refine((b) => !(b.expiresAt && b.expiresInSeconds), {
    path: ['expiresAt'],
    message: 'give expiresAt or expiresInSeconds, not both',
  })
  .meta({ id: 'RotateToken' });
export type RotateTokenBody = z.infer<typeof rotateTokenBody>;

/** The successor with its secret, and whether the revocation or new expiry of the old token is effective. */
export const rotatedTokenSchema = issuedTokenSchema
  .extend({
    effective: effectSchema.shape.effective.meta({
      description:
        'of the old token: no verifier accepts it for longer than the rotation allows, in a check that starts now',
    }),
    receipt: effectSchema.shape.receipt.meta({
      description: "of the old token's revocation or new expiry; the successor has none yet",
    }),
    pending: effectSchema.shape.pending,
  })
  .meta({ id: 'RotatedToken' });
export type RotatedToken = z.infer<typeof rotatedTokenSchema>;

export const exposedTokensBody = z
  .strictObject({
    tokens: z.array(z.string().min(1).max(200)).min(1).max(LIMITS.exposedTokensMax),
  })
  .meta({ id: 'ExposedTokens' });

/** A token made elsewhere, of which only the SHA-256 is sent: the secret stays with its holder. */
export const importedTokenSchema = z
  .strictObject({
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, 'the SHA-256 of the whole secret, 64 lower-case hexadecimal digits')
      .meta({ description: 'of the whole secret' }),
    start: z
      .string()
      .regex(
        /^[a-z][a-z0-9]{0,15}_(pat|prj)_[0-9A-Za-z]{4}$/,
        'the first characters of the secret, such as lk_pat_3xQ7',
      ),
    name: lineSchema(LIMITS.nameLengthMax),
    description: textSchema(LIMITS.descriptionLengthMax).optional(),
    scopes: scopesInput.default([]),
    expiresAt: timeInputSchema.optional(),
    allowedIps: allowedIpsInput.default([]),
    rateLimit: rateLimitSchema.nullable().optional(),
    metadata: metadataSchema.optional(),
  })
  .meta({ id: 'ImportedToken' });
export type ImportedToken = z.infer<typeof importedTokenSchema>;
export const importTokensBody = z
  .strictObject({
    projectId: idSchema.optional().meta({ description: 'they become tokens of this project; without it, your own' }),
    tokens: z.array(importedTokenSchema).min(1).max(LIMITS.importTokensMax),
  })
  .meta({ id: 'ImportTokens' });
export const importAnswerSchema = z.object({
  imported: z.int(),
  tokens: z.array(z.object({ id: idSchema, name: z.string(), start: z.string() })),
});

export const usageQuery = z.strictObject({ from: timeInputSchema.optional(), to: timeInputSchema.optional() });
export const usageSchema = z
  .object({
    total: z.int(),
    buckets: z.array(z.object({ hour: timeSchema, route: z.string(), status: z.string(), count: z.int() })),
    callers: z.array(
      z.object({ ip: z.string(), userAgent: z.string(), firstSeen: timeSchema, lastSeen: timeSchema, count: z.int() }),
    ),
  })
  .meta({ id: 'Usage' });
export type Usage = z.infer<typeof usageSchema>;
