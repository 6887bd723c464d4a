import { z } from 'zod';
import { denialReasonSchema } from '../denials.js';
import { cursorSchema, idSchema, limitSchema, page, timeInputSchema, timeSchema } from './common.js';

/** Every action that leaves an audit event: the closed list. */
export const AUDIT_ACTIONS = [
  'token.issued',
  'token.updated',
  'token.disabled',
  'token.enabled',
  'token.rotated',
  'token.revoked',
  'token.expired',
  'token.reported',
  'tokens.revoked_all',
  'user.created',
  'user.updated',
  'user.disabled',
  'user.enabled',
  'project.created',
  'project.updated',
  'project.closed',
  'member.added',
  'member.changed',
  'member.removed',
  'policy.updated',
  'session.started',
  'session.failed',
  'session.ended',
  'verifier.ended',
  'system.restored',
  'system.settled',
] as const;
export const auditActionSchema = z.enum(AUDIT_ACTIONS);
export type AuditAction = (typeof AUDIT_ACTIONS)[number];

export const auditEventSchema = z
  .object({
    id: idSchema,
    seq: z.int().nullable().meta({ description: 'position in the hash chain; null until sealed' }),
    at: timeSchema,
    actor: z.object({ type: z.enum(['user', 'token', 'system']), id: idSchema.nullable(), name: z.string() }),
    action: auditActionSchema,
    tokenId: idSchema.nullable(),
    projectId: idSchema.nullable(),
    subject: z
      .object({
        type: z.enum(['token', 'user', 'project', 'member', 'session', 'verifier', 'system']),
        id: z.string(),
        name: z.string(),
      })
      .nullable(),
    ip: z.string().nullable(),
    userAgent: z.string().nullable(),
    requestId: z.string().nullable(),
    details: z.record(z.string(), z.unknown()),
    hash: z.string().nullable(),
  })
  .meta({ id: 'AuditEvent' });
export type AuditEvent = z.infer<typeof auditEventSchema>;

const filters = {
  actor: idSchema.optional(),
  tokenId: idSchema.optional(),
  projectId: idSchema.optional(),
  action: auditActionSchema.optional(),
  from: timeInputSchema.optional(),
  to: timeInputSchema.optional(),
};
export const auditQuery = z.strictObject({ ...filters, limit: limitSchema, cursor: cursorSchema.optional() });
export const auditExportQuery = z.strictObject({ ...filters, format: z.enum(['ndjson', 'csv']).default('ndjson') });
export const auditPage = page(auditEventSchema).meta({ id: 'AuditPage' });
export const chainStateSchema = z
  .object({
    ok: z.boolean(),
    events: z.int(),
    checkpoints: z.int(),
    firstBroken: z.object({ seq: z.int().nullable(), reason: z.string() }).nullable(),
  })
  .meta({ id: 'ChainState' });

export const denialParams = z.strictObject({
  requestId: z
    .string()
    .min(1)
    .max(100)
    .regex(/^[A-Za-z0-9._:-]+$/),
});
export const denialSchema = z
  .object({
    requestId: z.string(),
    at: timeSchema,
    reason: denialReasonSchema,
    tokenId: idSchema.nullable(),
    route: z.string(),
    method: z.string(),
    ip: z.string(),
  })
  .meta({ id: 'Denial' });
export type Denial = z.infer<typeof denialSchema>;

/** Further parameters are ignored, but not repeated ones (RFC 6749 sections 3.1 and 3.2). */
export const introspectBody = z
  .object({
    token: z.string().min(1).max(200),
    token_type_hint: z.string().max(100).optional(),
  })
  .catchall(z.string());
/** RFC 7662 section 2.2; for an inactive token only `active: false`. */
export const introspectionSchema = z
  .object({
    active: z.boolean(),
    scope: z.string().optional(),
    client_id: z.string().optional(),
    username: z.string().optional(),
    token_type: z.literal('Bearer').optional(),
    exp: z.int().optional(),
    iat: z.int().optional(),
    sub: z.string().optional(),
    iss: z.string().optional(),
    jti: z.string().optional(),
  })
  .meta({ id: 'Introspection' });
