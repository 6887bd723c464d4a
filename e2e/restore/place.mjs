import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ownServer, startCluster } from '@latchkey/testing';

/**
 * An installation of its own for one drill.
 * @typedef {object} Installation
 * @property {import('./requests.mjs').Cluster} cluster one token-service and two gateways
 * @property {{ query(text: string): Promise<Record<string, unknown>[]> }} server its PostgreSQL
 * @property {string} dir a folder for copies, which PostgreSQL's user can enter
 * @property {number} [presentEveryMs] how often each token is presented
 * @property {() => Promise<string>} logs what the token-services that run now have printed
 * @property {() => Promise<void>} close
 *
 * @typedef {object} Processes
 * @property {import('@latchkey/testing').Cluster} cluster
 * @property {import('@latchkey/testing').OwnServer} server
 * @property {import('@latchkey/testing').StandBy} [standBy]
 * @property {(() => Promise<void>)[]} closing what the drill has opened
 *
 * @typedef {Omit<Installation, 'cluster' | 'server'> & Processes} Place of processes on this machine, without containers
 */

export const LEASE_MS = 3_000;

/** @param {{ ledger?: boolean, standBy?: boolean }} what @returns {Promise<Place>} */
export async function openPlace(what) {
  // Another process can take a port that was free a moment ago.
  for (let attempt = 1; ; attempt++) {
    try {
      return await open(what);
    } catch (error) {
      if (attempt === 3 || !/is in use|EADDRINUSE/.test(String(error))) throw error;
    }
  }
}

/** @param {{ ledger?: boolean, standBy?: boolean }} what @returns {Promise<Place>} */
async function open({ ledger = true, standBy = false }) {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-drill-'));
  chmodSync(dir, 0o711);
  /** @type {(() => Promise<void>)[]} */
  const closing = [async () => rmSync(dir, { recursive: true, force: true })];
  const close = async () => {
    for (const end of closing.splice(0).reverse()) await end();
  };
  try {
    const server = await ownServer(async () => undefined); // the cluster migrates it
    closing.push(() => server.close());
    const second = standBy ? await server.standBy() : undefined;
    const cluster = await startCluster({
      gateways: 2,
      leaseMs: LEASE_MS,
      throughLink: standBy,
      ledger,
      database: server,
    });
    closing.push(() => cluster.close());
    const logs = async () => cluster.tokenServices.map(({ process }) => process.logs()).join('\n');
    return { cluster, server, ...(second && { standBy: second }), dir, closing, logs, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The only token-service. @param {Place} place */
export function serviceOf({ cluster }) {
  const [service] = cluster.tokenServices;
  if (!service) throw new Error('the cluster has no token-service');
  return service;
}
