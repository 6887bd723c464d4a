import type { Confirmations, FeedKeys, InvalidationLog, Leases } from '@latchkey/token-service/invalidation';
import type { Clock, RenewalRefused, Verifier } from '@latchkey/verifier';

/** What the shipped `Authority` sees of a connection. */
export interface Proven {
  readonly id: string;
  readonly processID: number;
  proof?: object;
  readonly warnings: number;
  query(text: string, values: unknown[]): Promise<{ rows: object[] }>;
  end(): Promise<void>;
}

/** Of `database/authority.ts`: who may answer. */
export interface AuthorityRoom {
  readonly Authority: new (
    clock: Clock,
    leaseMs: number,
  ) => { holds(connection: Proven): boolean; prove(connection: Proven): Promise<void> };
  readonly mustBeUnwarned: (connection: Proven, warnings: number) => void;
}

/** The shipped files that are run, with or without patches. */
export interface ShippedRooms extends AuthorityRoom {
  readonly Verifier: typeof Verifier;
  readonly RenewalRefused: typeof RenewalRefused;
  readonly Confirmations: typeof Confirmations;
  readonly FeedKeys: typeof FeedKeys;
  readonly InvalidationLog: typeof InvalidationLog;
  readonly Leases: typeof Leases;
}
