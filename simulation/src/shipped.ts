import { Confirmations, FeedKeys, InvalidationLog, Leases } from '@latchkey/token-service/invalidation';
import { RenewalRefused, Verifier } from '@latchkey/verifier';
import { Database } from './database.js';
import { SimulatedStore } from './store.js';

/** The code under test: the shipped rooms, and the store that says what the shipped SQL says. */
export interface Rooms {
  readonly Verifier: typeof Verifier;
  readonly RenewalRefused: typeof RenewalRefused;
  readonly Confirmations: typeof Confirmations;
  readonly FeedKeys: typeof FeedKeys;
  readonly InvalidationLog: typeof InvalidationLog;
  readonly Leases: typeof Leases;
  readonly Store: typeof SimulatedStore;
  readonly Database: typeof Database;
}

export const shipped: Rooms = {
  Verifier,
  RenewalRefused,
  Confirmations,
  FeedKeys,
  InvalidationLog,
  Leases,
  Store: SimulatedStore,
  Database,
};
