import { z } from 'zod';
import { idSchema, timeSchema, verifierCallerSchema } from './common.js';

/** A process that can answer checks from its own memory, as its lease stands now. */
export const verifierSchema = z
  .object({
    id: idSchema,
    name: z.string().meta({ description: 'as the verifier calls itself; for people, and not to be relied on' }),
    caller: verifierCallerSchema,
    version: z.string().meta({ description: 'as the verifier says; empty for version 0.1' }),
    since: timeSchema.meta({ description: 'when it took its lease' }),
    leaseEndsInMs: z.number().meta({
      description: 'from now, with the drift allowance: after that it certainly answers nothing from memory',
    }),
    cursorLag: z
      .int()
      .nullable()
      .meta({ description: 'invalidations that its last renewal had not applied; null when it had no cursor' }),
    lastConfirmationMs: z
      .number()
      .nullable()
      .meta({ description: 'how long it took to confirm the invalidation before; at most a second old' }),
    ended: z.boolean().meta({ description: 'the lease was ended and is not renewed any more' }),
  })
  .meta({ id: 'Verifier' });
export type VerifierItem = z.infer<typeof verifierSchema>;

export const verifierListSchema = z.object({ items: z.array(verifierSchema) });
