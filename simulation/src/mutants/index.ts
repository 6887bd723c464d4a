import { Pool } from '../connection.js';
import { patchedModules } from '../patched.js';
import { type Modules, shipped } from '../shipped.js';
import { SimulatedStore } from '../store.js';
import { attackers } from './attackers.js';
import { failover } from './failover.js';
import { history } from './history.js';
import { invalidations } from './invalidations.js';
import { leases } from './leases.js';
import type { Mutant } from './mutant.js';

export const mutants: readonly Mutant[] = [...leases, ...invalidations, ...attackers, ...history, ...failover];

/** The shipped modules with one mutation. */
export async function modulesWith({ name, patches = [], ...own }: Mutant): Promise<Modules> {
  const patched = patches.length > 0 ? await patchedModules(name, patches) : {};
  const { Store = SimulatedStore, Pool: Connections = Pool } = own;
  return { ...shipped, ...patched, Store, Pool: Connections };
}
