import { ownServer, startCluster } from '@latchkey/testing';

export const LEASE_MS = 3_000;
/** After this time every lease granted before has lapsed, also for those who wait for it. */
export const LAPSED_MS = LEASE_MS * 1.2;
export const CLUSTER = { tokenServices: 2, gateways: 3, leaseMs: LEASE_MS };

/** A member that must be there. @template T @param {readonly T[]} list @param {number} index @returns {T} */
export function at(list, index) {
  const found = list[index];
  if (found === undefined) throw new Error(`the cluster has no member ${index}`);
  return found;
}

/**
 * A cluster on a PostgreSQL of its own, which flushes every commit.
 * @param {{ standBy?: boolean }} [options] whether each commit waits for a stand-by
 * @returns {Promise<import('./trial.mjs').OwnPlace>}
 */
export async function ownPlace({ standBy = false } = {}) {
  const server = await ownServer(async () => undefined); // the cluster migrates it
  try {
    const second = standBy ? await server.standBy() : undefined;
    const cluster = await startCluster({ ...CLUSTER, database: server });
    const close = async () => {
      await cluster.close();
      await server.close();
    };
    return { cluster, server, ...(second && { standBy: second }), close };
  } catch (error) {
    await server.close();
    throw error;
  }
}
