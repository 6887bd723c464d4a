import { z } from 'zod';

/** Why a verification was denied: the closed list. `errors.ts` maps it to the response to the caller. */
export const DENIAL_REASONS = [
  'malformed',
  'bad_checksum',
  'unknown',
  'revoked',
  'expired',
  'disabled',
  'owner_disabled',
  'project_closed',
  'insufficient_scope',
  'wrong_project',
  'address_not_allowed',
  'rate_limited',
  'restored',
  'unavailable',
] as const;

export const denialReasonSchema = z.enum(DENIAL_REASONS);
export type DenialReason = (typeof DENIAL_REASONS)[number];
