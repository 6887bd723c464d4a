import { z } from 'zod';
import { LIMITS } from '../limits.js';

/** An id as part of a regular expression: a UUID in lower case. */
export const ID_SOURCE = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}';
const ID = new RegExp(`^${ID_SOURCE}$`);
/** Ids are UUIDv7, lower case. */
export const idSchema = z.string().regex(ID, 'must be a lower-case UUID');
/** Whether a text is an id, of any version of UUID. */
export const isId = (text: string): boolean => ID.test(text);
/** RFC 3339 in UTC, in responses. */
export const timeSchema = z.iso.datetime();
/**
 * RFC 3339 with any offset, in requests: section 5.6 allows small letters, and second 60, which JavaScript does not know, counts as
 * the one before it.
 */
export const timeInputSchema = z
  .string()
  .max(LIMITS.timeLengthMax)
  .meta({ format: 'date-time' })
  .transform((text) => text.toUpperCase().replace(/^(.{16}):60/, '$1:59'))
  .pipe(z.iso.datetime({ offset: true }));

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are to be rejected
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: line breaks and tabs stay allowed in longer texts
const CONTROL_BUT_BREAKS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

/** Something of it can be seen. */
const VISIBLE = /[^\s\p{C}\p{Default_Ignorable_Code_Point}]/u;

/** One line of text for people: trimmed, no control or direction-changing characters, and not invisible. */
export const lineSchema = (max: number) =>
  z
    .string()
    .trim()
    .min(1, 'must not be empty')
    .max(max)
    .refine((s) => !CONTROL.test(s) && s.isWellFormed(), { error: 'must not hold control characters', abort: true })
    .refine((s) => s === '' || VISIBLE.test(s), 'must have a character that can be seen');
/** Longer text for people; line breaks and empty text allowed. */
export const textSchema = (max: number) =>
  z
    .string()
    .max(max)
    .refine((s) => !CONTROL_BUT_BREAKS.test(s) && s.isWellFormed(), 'must not hold control characters');

export const emailSchema = z
  .email()
  .max(LIMITS.emailLengthMax)
  .transform((s) => s.toLowerCase());

export const limitSchema = z.coerce
  .number<number>()
  .int()
  .min(1)
  .max(LIMITS.pageItemsMax)
  .default(LIMITS.pageItemsDefault);
export const cursorSchema = z
  .string()
  .min(1)
  .max(LIMITS.cursorLengthMax)
  .regex(/^[A-Za-z0-9_-]+$/, 'is not a cursor of ours');

export const page = <T extends z.ZodType>(item: T) =>
  z.object({ items: z.array(item), nextCursor: z.string().nullable() });

export const idParams = z.strictObject({ id: idSchema });

/** The owner of a verifier: Latchkey's own service, or the holder of a token with `tokens:verify`. */
export const verifierCallerSchema = z
  .object({
    type: z.enum(['first_party', 'token']),
    id: idSchema.optional().meta({ description: 'of the token; only for those who can see it' }),
    name: z.string().optional().meta({ description: 'of the token; only for those who can see it' }),
  })
  .meta({ id: 'VerifierCaller' });
export type VerifierCaller = z.infer<typeof verifierCallerSchema>;

/** The change that a signed receipt is about, from its audit event. */
export const receiptChangeSchema = z
  .object({
    id: idSchema.meta({ description: 'of the audit event' }),
    action: z.string().meta({ description: 'such as `token.revoked`' }),
    at: timeSchema,
    reason: z.string().nullable().meta({ description: 'of a revocation' }),
    subject: z.object({ type: z.string(), id: z.string() }),
  })
  .meta({ id: 'ReceiptChange' });
export type ReceiptChange = z.infer<typeof receiptChangeSchema>;

/** How each verifier confirmed: by acknowledgement, cursor, release, or expiry of its lease. */
export const receiptSchema = z
  .object({
    id: idSchema.optional().meta({ description: 'absent in receipts of version 0.1' }),
    confirmedAt: timeSchema,
    elapsedMs: z.number(),
    verifiers: z.array(
      z.object({
        id: idSchema,
        name: z.string(),
        caller: verifierCallerSchema.optional().meta({ description: 'absent in receipts of version 0.1' }),
        by: z.enum(['ack', 'cursor', 'released', 'lease']),
        ms: z.number(),
      }),
    ),
    ledger: z.enum(['written', 'failed', 'off']).optional().meta({
      description:
        'whether the change was also written outside the database before this response; absent in receipts of version 0.1',
    }),
    change: receiptChangeSchema.optional().meta({ description: 'present in a signed receipt' }),
    keyId: z
      .string()
      .regex(/^[0-9a-f]{16}$/)
      .optional()
      .meta({
        description: 'of the signing key: the first 16 hex digits of the SHA-256 of the public key in SPKI form',
      }),
    signature: z
      .base64url()
      .max(128)
      .optional()
      .meta({ description: 'Ed25519; absent without RECEIPT_SIGNING_KEY. `latchkey receipt verify` checks it' }),
  })
  .meta({ id: 'Receipt' });
export type Receipt = z.infer<typeof receiptSchema>;

/** A JWK Set (RFC 7517) of Ed25519 keys (RFC 8037). */
export const receiptKeysSchema = z
  .object({
    keys: z.array(
      z.object({
        kty: z.literal('OKP'),
        crv: z.literal('Ed25519'),
        x: z.base64url(),
        kid: z.string().meta({ description: '`keyId` of a receipt' }),
        use: z.literal('sig'),
        alg: z.literal('EdDSA'),
      }),
    ),
  })
  .meta({ id: 'ReceiptKeys' });
export type ReceiptKeys = z.infer<typeof receiptKeysSchema>;

export const pendingSchema = z
  .array(
    z.object({ id: idSchema, name: z.string(), caller: verifierCallerSchema.optional(), leaseEndsInMs: z.number() }),
  )
  .meta({ id: 'Pending' });
export type Pending = z.infer<typeof pendingSchema>;

/** The part of the response that every change that narrows rights has. */
export const effectSchema = z.object({
  effective: z
    .boolean()
    .meta({ description: 'true: no verifier anywhere accepts the token in a check that starts now' }),
  receipt: receiptSchema.nullable(),
  pending: pendingSchema,
});
export type Effect = z.infer<typeof effectSchema>;
