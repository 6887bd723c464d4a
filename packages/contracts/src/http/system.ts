import { z } from 'zod';
import { auditActionSchema } from './audit.js';
import { effectSchema, idSchema, timeSchema, verifierCallerSchema } from './common.js';

/** Most changes listed that could not be applied again after a restore. */
const NOT_REAPPLIED_MAX = 100;

/** A process that can check tokens from its own memory, with the present state of its lease. */
export const verifierSchema = z
  .object({
    id: idSchema,
    name: z.string().meta({ description: 'chosen by the verifier; for people, and not to be relied on' }),
    caller: verifierCallerSchema,
    version: z.string().meta({ description: 'reported by the verifier; empty for version 0.1' }),
    routesHash: z
      .string()
      .nullable()
      .meta({ description: 'of the routes that a gateway used at its last renewal; null for other verifiers' }),
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

/** The copy of revocations outside the database, from which a restored database learns what it has lost. */
const ledgerSchema = z
  .object({
    state: z.enum(['written', 'failed', 'off']),
    reason: z.string().nullable().meta({ description: 'why it is not written; null when it is' }),
  })
  .meta({ description: 'whether revocations are also written outside the database', id: 'LedgerState' });

/** A restore of the database that was noticed, and what became of the tokens issued before it. */
export const restoreSchema = z
  .object({
    id: idSchema,
    detectedAt: timeSchema,
    newestEventAt: timeSchema.nullable().meta({
      description:
        'time of the newest audit event in the restored database: later changes are lost; null: there is none',
    }),
    state: z
      .enum(['unsettled', 'settled'])
      .meta({ description: 'while it is unsettled, tokens issued before the restore are denied as `restored`' }),
    reason: z
      .enum([
        'no_ledger',
        'ledger_missing',
        'ledger_copied',
        'ledger_cut',
        'ledger_unreadable',
        'ledger_uncertain',
        'ledger_incomplete',
      ])
      .nullable()
      .meta({ description: 'why it could not be settled without an administrator; null: it could' }),
    ledgerReachesTo: timeSchema
      .nullable()
      .meta({ description: 'time of the newest change in the ledger; null: it could not be read' }),
    reapplied: z.int().meta({ description: 'changes applied again from the ledger' }),
    mustSetPassword: z.int().meta({ description: 'people who must set a new password' }),
    sessionsEnded: z.int(),
    notReapplied: z
      .array(
        z.object({
          action: auditActionSchema,
          subject: z.object({ type: z.string(), id: z.string() }),
          at: timeSchema,
        }),
      )
      .max(NOT_REAPPLIED_MAX)
      .meta({ description: 'changes in the ledger that could not be applied again: check them by hand' }),
    settledAt: timeSchema.nullable(),
    choice: z.enum(['revoke', 'accept', 'ledger', 'verifiers']).nullable().meta({
      description:
        'how it was settled: by an administrator, from the ledger, or, after a failover, by the renewals that the verifiers remember; null while unsettled',
    }),
  })
  .meta({ id: 'Restore' });
export type Restore = z.infer<typeof restoreSchema>;

export const settleRestoreBody = z
  .strictObject({
    choice: z.enum(['revoke', 'accept']).meta({
      description:
        '`revoke`: all tokens that existed at the restore are revoked, and all people but the caller must set a new password; `accept`: these tokens are accepted again',
    }),
  })
  .meta({ id: 'SettleRestore' });
export type SettleRestoreBody = z.infer<typeof settleRestoreBody>;
export const settledRestoreSchema = effectSchema.extend({ restore: restoreSchema }).meta({ id: 'SettledRestore' });
export type SettledRestore = z.infer<typeof settledRestoreSchema>;

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
    ledger: ledgerSchema,
    restore: restoreSchema.nullable().meta({ description: 'the latest restore that was noticed; null: none was' }),
    peppers: z
      .array(
        z.object({
          id: z.string().meta({ description: 'its fingerprint, which does not reveal it' }),
          configured: z.boolean().meta({ description: 'the process that responded has it in TOKEN_PEPPERS' }),
          current: z.boolean().meta({ description: 'that process writes under it' }),
          inUse: z.boolean().meta({ description: 'a token-service does not start without it' }),
          firstUsedAt: timeSchema.nullable().meta({ description: 'at the latest; null: never the current one' }),
          tokens: z.int().nullable().meta({
            description:
              'that depend on it at most, neither revoked nor expired: those from before version 0.2 count for each pepper of then. A few seconds old; null: counting took too long',
          }),
          secondFactors: z.int().nullable().meta({ description: 'counted in the same way' }),
          recoveryCodes: z
            .int()
            .nullable()
            .meta({ description: 'people with recovery codes, counted in the same way' }),
        }),
      )
      .meta({ description: 'every pepper that this database knows, the oldest first' }),
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
