import type { Confirmations, FeedKeys, InvalidationLog, Leases } from '@latchkey/token-service/invalidation';
import type { Clock, RenewalRefused, Verifier } from '@latchkey/verifier';
import { Pool } from './connection.js';
import { Database } from './database.js';
import { patchedRooms } from './patched.js';
import { SimulatedStore } from './store.js';

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

/** The code under test: the shipped rooms, and the store that says what the shipped SQL says. */
export interface Rooms extends AuthorityRoom {
  readonly Verifier: typeof Verifier;
  readonly RenewalRefused: typeof RenewalRefused;
  readonly Confirmations: typeof Confirmations;
  readonly FeedKeys: typeof FeedKeys;
  readonly InvalidationLog: typeof InvalidationLog;
  readonly Leases: typeof Leases;
  readonly Store: typeof SimulatedStore;
  readonly Pool: typeof Pool;
  readonly Database: typeof Database;
}

/** As shipped: compiled from the sources, because `Authority` is nothing that the token-service exports. */
export const shipped: Rooms = {
  ...(await patchedRooms('shipped', [])),
  Store: SimulatedStore,
  Pool,
  Database,
};
