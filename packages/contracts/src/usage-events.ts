import { z } from 'zod';
import { denialReasonSchema } from './denials.js';
import { ID_SOURCE, idSchema } from './http/common.js';
import { usageKey, usageTicket } from './keys.js';
import { mac, parseJson, secretEquals } from './message.js';

/** Longest batch, in UTF-16 code units: 5 000 lines and 1 000 denials of their longest. */
export const USAGE_BODY_LENGTH_MAX = 6_000_000;
/** Most verifications in one line. */
export const USAGE_COUNT_MAX = 1_000_000_000;
/** Unix milliseconds of the year 2200: later times are invalid. */
const TIME_MS_MAX = 7_258_118_400_000;

/** The caller name of Latchkey's own services; a holder of `tokens:verify` is `token:<id>`. */
export const FIRST_PARTY_CALLER = 'first-party';
export const callerSchema = z.string().regex(new RegExp(`^(${FIRST_PARTY_CALLER}|token:${ID_SOURCE})$`));

const timeMsSchema = z.int().min(0).max(TIME_MS_MAX);

/** Longest texts of a batch, in UTF-16 code units. A batch with a longer one is refused as a whole: senders cut them. */
export const USAGE_TEXT_MAX = { requestId: 100, route: 100, method: 20, ip: 45, userAgent: 200 } as const;

/** One counted line of a usage batch. */
export const usageLineSchema = z.strictObject({
  tokenId: idSchema,
  /** Start of the hour, Unix milliseconds. */
  hourMs: timeMsSchema,
  route: z.string().max(USAGE_TEXT_MAX.route),
  /** `allowed` or the denial reason. */
  status: z.union([z.literal('allowed'), denialReasonSchema]),
  ip: z.string().max(USAGE_TEXT_MAX.ip),
  userAgent: z.string().max(USAGE_TEXT_MAX.userAgent),
  count: z.int().min(1).max(USAGE_COUNT_MAX),
  firstSeenMs: timeMsSchema,
  lastSeenMs: timeMsSchema,
});
export type UsageLine = z.infer<typeof usageLineSchema>;

export const denialLineSchema = z.strictObject({
  requestId: z.string().max(USAGE_TEXT_MAX.requestId),
  atMs: timeMsSchema,
  reason: denialReasonSchema,
  tokenId: idSchema.nullable(),
  route: z.string().max(USAGE_TEXT_MAX.route),
  method: z.string().max(USAGE_TEXT_MAX.method),
  ip: z.string().max(USAGE_TEXT_MAX.ip),
});
export type DenialLine = z.infer<typeof denialLineSchema>;

/** Proves that a third party has looked a token up: see `usageTicket`. */
export const usageTicketSchema = z.strictObject({
  tokenId: idSchema,
  ticket: z.string().regex(/^[A-Za-z0-9_-]{22}$/),
});

/**
 * The counts of a verifier since its last batch. `sequence` rises by one for each batch of a verifier: a batch sent
 * twice counts once.
 */
export const usageBatchSchema = z.strictObject({
  verifier: idSchema,
  sequence: z.int().min(1),
  lines: z.array(usageLineSchema).max(5_000),
  denials: z.array(denialLineSchema).max(1_000),
  /** Denials dropped because of a bound. */
  denialsDropped: z.int().min(0).max(USAGE_COUNT_MAX),
  /** Of the tokens above; only third parties need them. */
  tickets: z.array(usageTicketSchema).max(6_000).optional(),
});
export type UsageBatch = z.infer<typeof usageBatchSchema>;

/** An event in the stream: `body` is the batch as JSON, `mac` over it by the verifier's own usage key. */
export const usageBatchEventSchema = z.strictObject({
  verifier: idSchema,
  /** Verifiers of version 0.1 do not send it. */
  caller: callerSchema.default(FIRST_PARTY_CALLER),
  body: z.string().max(USAGE_BODY_LENGTH_MAX),
  mac: z.base64url().max(100),
});
export type UsageBatchEvent = z.infer<typeof usageBatchEventSchema>;

/** The fields of an event in a Redis stream. */
export const usageFields = ({ verifier, caller, body, mac: sent }: UsageBatchEvent): string[] => [
  ...['verifier', verifier, 'caller', caller],
  ...['body', body, 'mac', sent],
];

export function signUsageBatch(key: Uint8Array, caller: string, batch: UsageBatch): UsageBatchEvent {
  const body = JSON.stringify(batch);
  return { verifier: batch.verifier, caller, body, mac: mac(key, 'usage', body) };
}

/** Why a message of the usage stream was dropped. */
export type UsageDrop = 'malformed' | 'not_authentic';

/**
 * Reads an event of the stream: the batch and its authenticated caller, or why it is dropped.
 * @param usageSecrets `USAGE_SECRET`: all of its list, so that usage signed before a rotation still counts
 */
export function readUsageBatch(
  usageSecrets: readonly Uint8Array[],
  event: unknown,
): { batch: UsageBatch; caller: string } | UsageDrop {
  const outer = usageBatchEventSchema.safeParse(event);
  if (!outer.success) return 'malformed';
  const { verifier, caller, body, mac: sent } = outer.data;
  const isAuthentic = usageSecrets.some((usageSecret) =>
    secretEquals(mac(usageKey(usageSecret, { verifierId: verifier, caller }), 'usage', body), sent),
  );
  if (!isAuthentic) return 'not_authentic';
  const batch = parseJson(usageBatchSchema, body);
  return batch?.verifier === verifier ? { batch, caller } : 'malformed';
}

/** The tokens of a third party's batch that its caller has looked up. */
export function ticketedTokens(
  usageSecrets: readonly Uint8Array[],
  caller: string,
  { tickets = [] }: UsageBatch,
): Set<string> {
  const shown = tickets.filter(({ tokenId, ticket }) =>
    usageSecrets.some((usageSecret) =>
      secretEquals(usageTicket(usageSecret, { caller, tokenId }).toString('base64url'), ticket),
    ),
  );
  return new Set(shown.map(({ tokenId }) => tokenId));
}
