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

/** What the service promises about revocation, and what it is busy with. */
export const systemSchema = z
  .object({
    versions: z.object({
      tokenService: z.string().meta({ description: 'of the process that has answered' }),
      database: z.string().meta({ description: 'of the PostgreSQL server' }),
      verifiers: z
        .array(z.object({ version: z.string(), verifiers: z.int() }))
        .meta({ description: 'of those that hold a lease; empty for version 0.1' }),
    }),
    guarantee: z.int().meta({
      description:
        'version of the revocation protocol that holds everywhere: 3, or 2 while a verifier of version 0.1 holds a lease',
    }),
    protocolMin: z.int().meta({ description: 'verifiers of an earlier version get no lease (PROTOCOL_MIN)' }),
    log: z
      .object({
        id: idSchema.meta({ description: 'another one is begun when a backup or another server is noticed' }),
        invalidations: z.int(),
        oldestAt: timeSchema.nullable(),
      })
      .meta({ description: 'the invalidations that verifiers can still catch up with' }),
    ledger: z.enum(['off']).meta({ description: 'whether revocations are also written outside the database' }),
    peppers: z.int().meta({ description: 'that this process knows: the current one and retired ones' }),
    unsettled: z
      .array(
        z.object({
          kind: z.string().meta({ description: 'revocation, revocation_of_all; more kinds may come' }),
          id: z.string(),
          since: timeSchema,
        }),
      )
      .meta({ description: 'what was accepted and is still being carried out or confirmed, the oldest 100' }),
  })
  .meta({ id: 'System' });
export type SystemState = z.infer<typeof systemSchema>;
