import { readFile } from 'node:fs/promises';
import { FileWatch, type Logger } from '@latchkey/runtime';
import { parseRoutes, RoutesFileError, type RoutesSource, readRoutes } from './file.js';
import type { RouteTable } from './table.js';

/** What became of a reading that was asked for. Plain, as it passes between processes. */
export type Reloaded =
  | { readonly hash: string; readonly routes: number }
  /** @property isInvalid the files are at fault, and nothing has changed; else not all processes use them yet */
  | { readonly reason: string; readonly isInvalid: boolean };

/** @param reason why the file of a setting cannot be used, as read together with the routes */
export const withSettings = (reloaded: Reloaded, reason: string | undefined): Reloaded =>
  'hash' in reloaded && reason !== undefined ? { reason, isInvalid: true } : reloaded;

export interface RoutesWatchDeps {
  readonly file: string;
  readonly env: NodeJS.ProcessEnv;
  /** Takes new routes. @throws when not all processes use them yet; it is called again with them */
  readonly use: (source: RoutesSource, table: RouteTable) => unknown;
  readonly logger: Pick<Logger, 'info' | 'error'>;
}

interface Candidate {
  readonly source: RoutesSource;
  readonly table: RouteTable;
}

/** Watches the routes file and the files that it names: all of them are used, or none. */
export class RoutesWatch {
  readonly #watch: FileWatch<Candidate>;
  #inUse: Candidate;

  /** @param table of `source`, which is in use */
  constructor(
    source: RoutesSource,
    table: RouteTable,
    private readonly deps: RoutesWatchDeps,
  ) {
    this.#inUse = { source, table };
    this.#watch = new FileWatch<Candidate>(keyOf(source), {
      read: () => this.#read(),
      use: (candidate) => this.#use(candidate),
      onFault: ({ message: reason, name }) =>
        deps.logger.error({ reason }, name === RoutesFileError.name ? INVALID : NOT_EVERYWHERE),
      onUnchanged: () => {
        const { routes, hash } = this.#inUse.table;
        deps.logger.info({ routes: routes.length, routesHash: hash }, 'routes unchanged');
      },
    });
  }

  /** Why what the files hold is not in use; undefined: it is. */
  get fault(): string | undefined {
    return this.#watch.fault;
  }

  start(): void {
    this.#watch.start();
  }

  stop(): void {
    this.#watch.stop();
  }

  /** Reads the files as the watch does every two seconds. */
  check(): Promise<void> {
    return this.#watch.check();
  }

  /** Reads the files and uses them at once. Never rejects. */
  async reload(): Promise<Reloaded> {
    try {
      await this.#watch.now();
    } catch (error) {
      return { reason: (error as Error).message, isInvalid: error instanceof RoutesFileError };
    }
    const { hash, routes } = this.#inUse.table;
    return { hash, routes: routes.length };
  }

  async #read() {
    const { file, env } = this.deps;
    const { source } = this.#inUse;
    if (await isOnDisk(file, source)) return { key: keyOf(source), content: this.#inUse };
    const found = readRoutes(file);
    const table = parseRoutes(found.text, file, env, found.files);
    return { key: keyOf(found), content: { source: found, table } };
  }

  async #use(candidate: Candidate): Promise<void> {
    const { source, table } = candidate;
    await this.deps.use(source, table);
    this.#inUse = candidate;
    this.deps.logger.info({ routes: table.routes.length, routesHash: table.hash }, 'routes reloaded');
  }
}

const INVALID = 'reloading the routes failed; the previous ones stay in use';
const NOT_EVERYWHERE = 'the new routes are not used by all processes yet; they get them again every two seconds';

const keyOf = ({ text, files }: RoutesSource) => JSON.stringify([text, [...files]]);

/** Without parsing, which costs more than reading. */
async function isOnDisk(file: string, { text, files }: RoutesSource): Promise<boolean> {
  for (const [name, content] of [[file, text] as const, ...files])
    if ((await readFile(name, 'utf8').catch(() => undefined)) !== content) return false;
  return true;
}
