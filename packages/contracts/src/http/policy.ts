import { z } from 'zod';
import { LIMITS } from '../limits.js';
import { cidrSchema } from './tokens.js';

/** Requirements of administrators for every token issued, rotated, imported or changed from now on. */
export const policySchema = z
  .object({
    lifetimeSecondsMax: z
      .int()
      .min(60)
      .max(LIMITS.lifetimeSecondsMax)
      .nullable()
      .meta({ description: 'longest time from issue to expiry; null: any' }),
    expiryRequired: z.boolean().meta({ description: 'no token without an expiry' }),
    allowedIpPrefixes: z
      .array(cidrSchema)
      .max(LIMITS.allowedIpsPerTokenMax)
      .meta({ description: 'every token must have allowed addresses, all within these; empty: not required' }),
    idleDays: z
      .int()
      .min(1)
      .max(3_650)
      .nullable()
      .meta({ description: 'tokens unused for this long are revoked, existing ones too; null: never' }),
  })
  .meta({ id: 'Policy' });
export type Policy = z.infer<typeof policySchema>;
export const putPolicyBody = z.strictObject(policySchema.shape).meta({ id: 'PutPolicy' });
