import type { Confirmations, FeedKeys, InvalidationLog, Leases } from '@latchkey/token-service/invalidation';
import type { LedgerFollower, ledgerWork, ThreadEnded } from '@latchkey/token-service/ledger';
import type { Examination, replayOf } from '@latchkey/token-service/restore';
import type { Clock, RenewalRefused, Verifier } from '@latchkey/verifier';

/** What the shipped `Authority` uses of a connection. */
export interface Proven {
  readonly id: string;
  readonly processID: number;
  proof?: object;
  readonly warnings: number;
  query(text: string, values: unknown[]): Promise<{ rows: object[] }>;
  end(): Promise<void>;
}

/** The exports of `database/authority.ts`: which server may be read. */
export interface AuthorityModule {
  readonly Authority: new (
    clock: Clock,
    leaseMs: number,
  ) => { holds(connection: Proven): boolean; prove(connection: Proven): Promise<void> };
  readonly mustBeUnwarned: (connection: Proven, warnings: number) => void;
}

/** The shipped files that are run, with or without patches. */
export interface ShippedModules extends AuthorityModule {
  readonly Verifier: typeof Verifier;
  readonly RenewalRefused: typeof RenewalRefused;
  readonly Confirmations: typeof Confirmations;
  readonly FeedKeys: typeof FeedKeys;
  readonly InvalidationLog: typeof InvalidationLog;
  readonly Leases: typeof Leases;
  readonly LedgerFollower: typeof LedgerFollower;
  readonly ledgerWork: typeof ledgerWork;
  readonly ThreadEnded: typeof ThreadEnded;
  readonly Examination: typeof Examination;
  readonly replayOf: typeof replayOf;
}
