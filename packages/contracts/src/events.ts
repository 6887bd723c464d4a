import { createHmac, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { denialReasonSchema } from './denials.js';
import { idSchema } from './http/common.js';

/** Kinds of invalidation: see the glossary in ARCHITECTURE.md. */
export const INVALIDATION_KINDS = ['token', 'owner', 'project', 'everything', 'misses'] as const;
export type InvalidationKind = (typeof INVALIDATION_KINDS)[number];

const xidSchema = z.string().regex(/^\d{1,20}$/);

/** A committed fact that some remembered answers are no longer true. */
export const invalidationSchema = z.strictObject({
  id: idSchema,
  kind: z.enum(INVALIDATION_KINDS),
  /** The token, person or project; empty for `everything` and `misses`. */
  subject: z.union([idSchema, z.literal('')]),
  /** Streams end at once; otherwise they are checked again first. */
  cut: z.boolean(),
  /** Transaction id that wrote it, decimal. */
  xid: xidSchema,
});
export type Invalidation = z.infer<typeof invalidationSchema>;

export const invalidationEventSchema = z.strictObject({
  log: idSchema,
  invalidation: invalidationSchema,
  mac: z.base64url(),
});
export type InvalidationEvent = z.infer<typeof invalidationEventSchema>;

export const acknowledgementEventSchema = z.strictObject({
  verifier: idSchema,
  invalidation: idSchema,
  mac: z.base64url(),
});
export type AcknowledgementEvent = z.infer<typeof acknowledgementEventSchema>;

/** One counted line of a usage batch. */
export const usageLineSchema = z.strictObject({
  tokenId: idSchema,
  /** Start of the hour, Unix milliseconds. */
  hourMs: z.int(),
  route: z.string().max(100),
  /** `allowed` or the denial reason. */
  status: z.union([z.literal('allowed'), denialReasonSchema]),
  ip: z.string().max(45),
  userAgent: z.string().max(200),
  count: z.int().min(1),
  firstSeenMs: z.int(),
  lastSeenMs: z.int(),
});
export type UsageLine = z.infer<typeof usageLineSchema>;

export const denialLineSchema = z.strictObject({
  requestId: z.string().max(100),
  atMs: z.int(),
  reason: denialReasonSchema,
  tokenId: idSchema.nullable(),
  route: z.string().max(100),
  method: z.string().max(20),
  ip: z.string().max(45),
});
export type DenialLine = z.infer<typeof denialLineSchema>;

/** What a verifier has counted since its last batch. `sequence` rises by one for each batch of a verifier: a batch sent twice counts once. */
export const usageBatchSchema = z.strictObject({
  verifier: idSchema,
  sequence: z.int().min(1),
  lines: z.array(usageLineSchema).max(5_000),
  denials: z.array(denialLineSchema).max(1_000),
  /** Denials not kept because a bound was reached. */
  denialsDropped: z.int().min(0),
});
export type UsageBatch = z.infer<typeof usageBatchSchema>;
/** As it stands in the stream: `body` is the batch as JSON, `mac` over it by the verifier's own key. */
export const usageBatchEventSchema = z.strictObject({ verifier: idSchema, body: z.string(), mac: z.base64url() });
export type UsageBatchEvent = z.infer<typeof usageBatchEventSchema>;

function mac(key: Uint8Array, purpose: string, text: string): string {
  return createHmac('sha256', key).update(`${purpose}\n${text}`).digest('base64url');
}

function macEquals(expected: string, actual: string): boolean {
  const a = Buffer.from(expected);
  const b = Buffer.from(actual);
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The key of one verifier, from the secret that token-service and jobs share (`EVENTS_SECRET`). */
export function verifierKey(eventsSecret: Uint8Array, verifierId: string): Buffer {
  return createHmac('sha256', eventsSecret).update(`verifier\n${verifierId}`).digest();
}

/** The key that authenticates invalidations towards all verifiers. */
export function feedKey(eventsSecret: Uint8Array): Buffer {
  return createHmac('sha256', eventsSecret).update('feed').digest();
}

const invalidationText = (log: string, i: Invalidation) => [log, i.id, i.kind, i.subject, i.cut, i.xid].join('\n');

export function signInvalidation(key: Uint8Array, log: string, invalidation: Invalidation): InvalidationEvent {
  return { log, invalidation, mac: mac(key, 'invalidation', invalidationText(log, invalidation)) };
}

/** Reads an event off Redis: undefined when it is not of the schema or not authentic. */
export function readInvalidation(key: Uint8Array, text: string): InvalidationEvent | undefined {
  const event = parseJson(invalidationEventSchema, text);
  return event && macEquals(mac(key, 'invalidation', invalidationText(event.log, event.invalidation)), event.mac)
    ? event
    : undefined;
}

export function signAcknowledgement(key: Uint8Array, verifier: string, invalidation: string): AcknowledgementEvent {
  return { verifier, invalidation, mac: mac(key, 'acknowledgement', `${verifier}\n${invalidation}`) };
}

/** @param keyOf the key of a verifier by its id */
export function readAcknowledgement(
  keyOf: (verifier: string) => Uint8Array,
  text: string,
): AcknowledgementEvent | undefined {
  const event = parseJson(acknowledgementEventSchema, text);
  if (!event) return undefined;
  return macEquals(mac(keyOf(event.verifier), 'acknowledgement', `${event.verifier}\n${event.invalidation}`), event.mac)
    ? event
    : undefined;
}

export function signUsageBatch(key: Uint8Array, batch: UsageBatch): UsageBatchEvent {
  const body = JSON.stringify(batch);
  return { verifier: batch.verifier, body, mac: mac(key, 'usage', body) };
}

export function readUsageBatch(keyOf: (verifier: string) => Uint8Array, event: unknown): UsageBatch | undefined {
  const outer = usageBatchEventSchema.safeParse(event);
  if (!outer.success || !macEquals(mac(keyOf(outer.data.verifier), 'usage', outer.data.body), outer.data.mac))
    return undefined;
  const batch = parseJson(usageBatchSchema, outer.data.body);
  return batch?.verifier === outer.data.verifier ? batch : undefined;
}

function parseJson<T>(schema: z.ZodType<T>, text: string): T | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // not ours: the caller drops and counts it
  }
  const result = schema.safeParse(value);
  return result.success ? result.data : undefined;
}
