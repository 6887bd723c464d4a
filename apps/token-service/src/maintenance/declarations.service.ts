import { ConfigError, FileWatch, type Logger } from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { readScopesFile, type ScopesFile, ScopesService } from '../authorization/index.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/index.js';
import { type Invalidation, InvalidationService } from '../invalidation/index.js';

/** Invalidates all cached tokens when the declared scopes differ from those announced last. */
@Injectable()
export class DeclarationsService implements OnApplicationShutdown {
  /** Of SCOPES_FILE; undefined without one. */
  readonly watch: FileWatch<ScopesFile> | undefined;

  constructor(
    private readonly db: Database,
    private readonly scopes: ScopesService,
    private readonly invalidations: InvalidationService,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CONFIG) { SCOPES_FILE: file }: Pick<TokenServiceConfig, 'SCOPES_FILE'>,
  ) {
    this.watch = file === undefined ? undefined : this.#watchOf(file);
  }

  onApplicationShutdown(): void {
    this.watch?.stop();
  }

  #watchOf(file: string): FileWatch<ScopesFile> {
    return new FileWatch(this.scopes.fileText, {
      read: async () => {
        try {
          const content = readScopesFile(file);
          return { key: content.text, content };
        } catch (error) {
          throw error instanceof ConfigError ? new Error(error.problems.join('; ')) : error;
        }
      },
      use: async (content) => {
        const { digest } = this.scopes.use(content);
        await this.announceChange();
        await this.scopes.follow(digest);
        this.logger.info({ scopes: content.scopes.length }, 'scopes reloaded');
      },
      onFault: ({ message: reason }) =>
        this.logger.error({ reason }, 'reloading the scopes failed; the previous ones stay in force'),
    });
  }

  /**
   * Compares this replica's declarations with those that any replica stored last, and replaces them. To be called before
   * the listeners open, and when the file has changed.
   * @returns whether an invalidation of everything was written
   */
  async announceChange(): Promise<boolean> {
    const { digest, text } = this.scopes.own;
    const written = await this.db.change(async (change): Promise<Invalidation | null> => {
      // The empty row means "none yet": there is a row to lock at the first start too.
      change.write([`INSERT INTO scope_declarations (digest) VALUES ('') ON CONFLICT DO NOTHING`]);
      const [last] = await change.read<{ digest: Buffer }>(['SELECT digest FROM scope_declarations FOR UPDATE']);
      change.write(['UPDATE scope_declarations SET digest = $1, declarations = $2', [digest, text]]);
      if (last?.digest.equals(digest)) return null;
      return this.invalidations.write(change, { kind: 'everything', subject: '', cut: false });
    });
    if (!written) return false;
    this.logger.info('the declared scopes have changed: verifiers empty their memory');
    // No one waits for it: until a verifier confirms, it checks by the old declarations, for one lease at most.
    await this.invalidations.confirm([written], { waitMs: 0, store: async () => undefined });
    return true;
  }
}
