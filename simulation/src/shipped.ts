import { Pool } from './connection.js';
import { Database } from './database.js';
import type { ShippedModules } from './modules.js';
import { patchedModules } from './patched.js';
import { SimulatedStore } from './store.js';

/** The code under test: the shipped modules, and the store that does what the shipped SQL does. */
export interface Modules extends ShippedModules {
  readonly Store: typeof SimulatedStore;
  readonly Pool: typeof Pool;
  readonly Database: typeof Database;
}

/** As shipped: compiled from the sources, because the token-service does not export `Authority`. */
export const shipped: Modules = {
  ...(await patchedModules('shipped', [])),
  Store: SimulatedStore,
  Pool,
  Database,
};
