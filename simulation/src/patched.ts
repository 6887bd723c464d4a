import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type * as invalidation from '@latchkey/token-service/invalidation';
import type * as ledger from '@latchkey/token-service/ledger';
import type * as restore from '@latchkey/token-service/restore';
import type * as verifier from '@latchkey/verifier';
import { transform } from '@swc/core';
import type { AuthorityModule, ShippedModules } from './modules.js';

/** One change to one shipped file: text that occurs in it exactly once, and its replacement. */
export type Patch = readonly [file: string, was: string, is: string];

const root = path.join(import.meta.dirname, '../..');
const modules = {
  verifier: 'packages/verifier/src',
  invalidation: 'apps/token-service/src/invalidation',
  database: 'apps/token-service/src/database',
  ledger: 'apps/token-service/src/ledger',
  system: 'apps/token-service/src/system',
} as const;
/** The files that use neither Nest, PostgreSQL nor Redis; all of the verifier's. */
const files = {
  invalidation: ['confirm.ts', 'feed-keys.ts', 'leases.ts', 'log.ts', 'protocol.ts', 'types.ts'],
  database: ['authority.ts', 'history.ts'],
  ledger: [
    'beside.ts',
    'comparison.ts',
    'entry.ts',
    'files.ts',
    'folder.ts',
    'follower.ts',
    'format.ts',
    'own-ledger.ts',
    'protocol.ts',
    'standing.ts',
    'store.ts',
    'stream.ts',
    'thread.ts',
    'vouching.ts',
  ],
  system: ['examination.ts', 'protocol.ts', 'replay.rules.ts'],
};

/**
 * The shipped modules from their sources, with patches, compiled into a folder of their own and loaded from there.
 * @param patches files named `verifier/lease.ts`, `invalidation/confirm.ts`
 * @throws when the text to replace does not occur exactly once: the shipped file has changed, and the patch must follow
 */
export async function patchedModules(name: string, patches: readonly Patch[]): Promise<ShippedModules> {
  const folder = path.join(import.meta.dirname, '../dist/patched', `${name.replace(/\W+/g, '-')}-${process.pid}`);
  const missing = new Set(patches);
  try {
    for (const [module, from] of Object.entries(modules)) {
      mkdirSync(path.join(folder, module), { recursive: true });
      for (const file of files[module as keyof typeof files] ?? readdirSync(path.join(root, from))) {
        let source = readFileSync(path.join(root, from, file), 'utf8');
        for (const patch of patches) {
          const [where, was, is] = patch;
          if (where !== `${module}/${file}`) continue;
          const times = source.split(was).length - 1;
          if (times !== 1) throw new Error(`${name}: in ${where} this occurs ${times} times, not once: ${was}`);
          source = source.replace(was, () => is);
          missing.delete(patch);
        }
        const { code } = await transform(source, {
          swcrc: false,
          module: { type: 'es6' },
          jsc: { target: 'es2024', parser: { syntax: 'typescript' } },
        });
        writeFileSync(path.join(folder, module, file.replace(/\.ts$/, '.js')), code);
      }
    }
    for (const [where] of missing) throw new Error(`${name}: there is no file ${where}`);
    const load = (file: string) => import(pathToFileURL(path.join(folder, file)).href);
    const { Verifier, RenewalRefused } = (await load('verifier/index.js')) as typeof verifier;
    const { Confirmations, FeedKeys, InvalidationLog, Leases } = (await load(
      'invalidation/protocol.js',
    )) as typeof invalidation;
    const { Authority, mustBeUnwarned } = (await load('database/authority.js')) as AuthorityModule;
    const { LedgerFollower, ledgerWork, ThreadEnded } = (await load('ledger/protocol.js')) as typeof ledger;
    const { Examination, replayOf } = (await load('system/protocol.js')) as typeof restore;
    return {
      Authority,
      mustBeUnwarned,
      Verifier,
      RenewalRefused,
      Confirmations,
      FeedKeys,
      InvalidationLog,
      Leases,
      LedgerFollower,
      ledgerWork,
      ThreadEnded,
      Examination,
      replayOf,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
