import { z } from 'zod';
import { idSchema, timeSchema, verifierCallerSchema } from './common.js';

/** A process that can check tokens from its own memory, with the present state of its lease. */
export const verifierSchema = z
  .object({
    id: idSchema,
    name: z.string().meta({ description: 'chosen by the verifier; for people, and not to be relied on' }),
    caller: verifierCallerSchema,
    version: z.string().meta({ description: 'reported by the verifier; empty for version 0.1' }),
    since: timeSchema.meta({ description: 'when it took its lease' }),
    leaseEndsInMs: z.number().meta({
      description: 'from now, with the drift allowance: afterwards it certainly accepts nothing from memory',
    }),
    cursorLag: z
      .int()
      .nullable()
      .meta({ description: 'invalidations that its last renewal had not applied; null when it had no cursor' }),
    lastConfirmationMs: z
      .number()
      .nullable()
      .meta({ description: 'how long it took to confirm the previous invalidation; at most a second old' }),
    ended: z.boolean().meta({ description: 'the lease was ended and is no longer renewed' }),
  })
  .meta({ id: 'Verifier' });
export type VerifierItem = z.infer<typeof verifierSchema>;

export const verifierListSchema = z.object({ items: z.array(verifierSchema) });

/** The revocation guarantee that the service gives, and its work in progress. */
export const systemSchema = z
  .object({
    versions: z.object({
      tokenService: z.string().meta({ description: 'of the process that responded' }),
      database: z.string().meta({ description: 'of the PostgreSQL server' }),
      verifiers: z
        .array(z.object({ version: z.string(), verifiers: z.int() }))
        .meta({ description: 'of those that hold a lease; empty for version 0.1' }),
    }),
    guarantee: z.int().meta({
      description:
        'version of the revocation protocol in effect everywhere: 3, or 2 while a verifier of version 0.1 holds a lease',
    }),
    protocolMin: z.int().meta({ description: 'verifiers of an earlier version get no lease (PROTOCOL_MIN)' }),
    log: z
      .object({
        id: idSchema.meta({ description: 'a new one begins when a restored backup or another server is detected' }),
        invalidations: z.int(),
        oldestAt: timeSchema.nullable(),
      })
      .meta({ description: 'the invalidations that verifiers can still read' }),
    ledger: z.enum(['off']).meta({ description: 'whether revocations are also written outside the database' }),
    peppers: z.int().meta({ description: 'configured in this process: the current one and retired ones' }),
    unsettled: z
      .array(
        z.object({
          kind: z.string().meta({ description: 'revocation, revocation_of_all; kinds can be added' }),
          id: z.string(),
          since: timeSchema,
        }),
      )
      .meta({ description: 'changes accepted and not yet completed or confirmed, the oldest 100' }),
  })
  .meta({ id: 'System' });
export type SystemState = z.infer<typeof systemSchema>;
