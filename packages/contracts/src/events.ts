import { hash } from 'node:crypto';
import { z } from 'zod';
import { idSchema } from './http/common.js';
import type { FeedKey, FeedSigner } from './keys.js';
import { mac, parseJson, secretEquals } from './message.js';

/** Kinds of invalidation: see the glossary in ARCHITECTURE.md. */
export const INVALIDATION_KINDS = ['token', 'owner', 'project', 'everything', 'misses'] as const;
export type InvalidationKind = (typeof INVALIDATION_KINDS)[number];

/** Most invalidations under one signature. */
export const INVALIDATIONS_PER_EVENT_MAX = 64;
/** Longest message of the feed, in UTF-16 code units: 64 invalidations of about 220 each. */
export const INVALIDATION_EVENT_LENGTH_MAX = 16_000;
/** Longest acknowledgement, in UTF-16 code units: 64 digests of 46 each. */
export const ACKNOWLEDGEMENT_LENGTH_MAX = 4_000;

const xidSchema = z.string().regex(/^\d{1,20}$/);
const digestSchema = z.string().regex(/^[A-Za-z0-9_-]{43}$/);

/** A committed record that some cached tokens are out of date. */
export const invalidationSchema = z.strictObject({
  id: idSchema,
  kind: z.enum(INVALIDATION_KINDS),
  /** The token, person or project; empty for `everything` and `misses`. */
  subject: z.union([idSchema, z.literal('')]),
  /** True: streams are cut at once; false: they are checked again first. */
  cut: z.boolean(),
  /** Id of the transaction that wrote it, decimal. */
  xid: xidSchema,
});
export type Invalidation = z.infer<typeof invalidationSchema>;

/** Invalidations published together, under one signature. */
export const invalidationEventSchema = z.strictObject({
  log: idSchema,
  invalidations: z.array(invalidationSchema).min(1).max(INVALIDATIONS_PER_EVENT_MAX),
  /** Id of the key that signed. */
  key: z.string().regex(/^[A-Za-z0-9_-]{16}$/),
  signature: z.string().regex(/^[A-Za-z0-9_-]{86}$/),
});
export type InvalidationEvent = z.infer<typeof invalidationEventSchema>;

export const acknowledgementEventSchema = z.strictObject({
  verifier: idSchema,
  /** Digests (`digestOf`) of the invalidations applied. */
  digests: z.array(digestSchema).min(1).max(INVALIDATIONS_PER_EVENT_MAX),
  mac: digestSchema,
});
export type AcknowledgementEvent = z.infer<typeof acknowledgementEventSchema>;

/** Identifies an invalidation by its whole content: a SHA-256 in base64url. */
export function digestOf(
  log: string,
  { id, kind, subject, cut, xid }: Omit<Invalidation, 'kind'> & { kind: string },
): string {
  return hash('sha256', ['latchkey invalidation', log, id, kind, subject, cut, xid].join('\n'), 'base64url');
}

const signedText = (digests: readonly string[]) => ['latchkey invalidations', ...digests].join('\n');

/** @throws RangeError beyond INVALIDATIONS_PER_EVENT_MAX */
export function signInvalidations(
  signer: FeedSigner,
  log: string,
  invalidations: readonly Invalidation[],
): InvalidationEvent {
  if (invalidations.length > INVALIDATIONS_PER_EVENT_MAX) throw new RangeError('too many invalidations for one event');
  const signature = signer.sign(signedText(invalidations.map((invalidation) => digestOf(log, invalidation))));
  return { log, invalidations: [...invalidations], key: signer.id, signature };
}

/** Parses a message of the feed; undefined when it does not match the schema. The signature is not verified yet. */
export const parseInvalidationEvent = (text: string): InvalidationEvent | undefined =>
  parseJson(invalidationEventSchema, text);

/** The digests of its invalidations, in the same order; undefined when the signature is not by this key. */
export function verifyInvalidationEvent(key: FeedKey, event: InvalidationEvent): string[] | undefined {
  const digests = event.invalidations.map((invalidation) => digestOf(event.log, invalidation));
  return key.verifies(signedText(digests), event.signature) ? digests : undefined;
}

const acknowledgedText = (verifier: string, digests: readonly string[]) => [verifier, ...digests].join('\n');

export function signAcknowledgement(
  key: Uint8Array,
  verifier: string,
  digests: readonly string[],
): AcknowledgementEvent {
  return { verifier, digests: [...digests], mac: mac(key, 'acknowledgement', acknowledgedText(verifier, digests)) };
}

/** Parses an acknowledgement; undefined when it does not match the schema. The MAC is not verified yet. */
export const parseAcknowledgement = (text: string): AcknowledgementEvent | undefined =>
  parseJson(acknowledgementEventSchema, text);

export function verifyAcknowledgement(
  key: Uint8Array,
  { verifier, digests, mac: sent }: AcknowledgementEvent,
): boolean {
  return secretEquals(mac(key, 'acknowledgement', acknowledgedText(verifier, digests)), sent);
}
