import { Pool } from './connection.js';
import { Database } from './database.js';
import { patchedRooms } from './patched.js';
import type { ShippedRooms } from './rooms.js';
import { SimulatedStore } from './store.js';

/** The code under test: the shipped rooms, and the store that says what the shipped SQL says. */
export interface Rooms extends ShippedRooms {
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
