import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Gauge, type Registry } from 'prom-client';
import { ConfigError, type Settings } from './config.js';
import { FileWatch } from './file-watch.js';
import type { Logger } from './logger.js';

/** For each setting that can be taken over while the service runs: whether this value of it can. */
export type Live<C> = { readonly [K in keyof C]?: (next: C[K], inUse: C[K]) => boolean };

export interface LiveSettingsOptions<C extends object> {
  readonly env: NodeJS.ProcessEnv;
  readonly settings: Settings;
  /**
   * Reads the configuration as at the start.
   * @param warn for what works but should be changed: said at the start, and not again when a file changes
   * @throws ConfigError without the value of a secret
   */
  readonly load: (env: NodeJS.ProcessEnv, warn: (text: string) => void) => C;
  readonly live: Live<C>;
  readonly logger: Pick<Logger, 'info' | 'warn' | 'error'>;
}

/** What files hold, or why one cannot be read, by the name of their setting. */
type Found = ReadonlyMap<string, { readonly text: string } | { readonly problem: string }>;

/**
 * A configuration whose settings given by `NAME_FILE` are watched. What can be taken over while running is written into
 * {@link config}, so read it where it is used; what cannot is pending until a restart. Files that are empty, unreadable or
 * invalid change nothing. No value is ever logged.
 */
export class LiveSettings<C extends object> {
  readonly config: C;
  readonly #files: ReadonlyMap<string, string>;
  /** Valid, as last read. */
  readonly #accepted: Map<string, string>;
  readonly #inUse: Map<string, string>;
  readonly #pending = new Set<string>();
  readonly #watch: FileWatch<Found>;

  /** Reads the configuration. @throws ConfigError */
  constructor(private readonly options: LiveSettingsOptions<C>) {
    const { env, settings, load, logger } = options;
    const names = Object.keys(settings).filter((name) => env[`${name}_FILE`] && !env[name]);
    this.#files = new Map(names.map((name) => [name, env[`${name}_FILE`]!]));
    this.#accepted = new Map();
    for (const [name, file] of this.#files) {
      try {
        this.#accepted.set(name, textOf(readFileSync(file, 'utf8')));
      } catch {
        // `load` says what is wrong.
      }
    }
    this.#inUse = new Map(this.#accepted);
    this.config = load(this.#environment(this.#accepted), (text) => logger.warn(text));
    this.#watch = new FileWatch<Found>(keyOf(new Map([...this.#accepted].map(([name, text]) => [name, { text }]))), {
      read: async () => {
        const content = await this.#read();
        return { key: keyOf(content), content };
      },
      use: (found) => this.#use(found),
      onFault: ({ message: reason }) => logger.error({ reason }, 'a changed setting cannot be used; nothing changes'),
    });
  }

  /** Why a changed file cannot be used; undefined: all can. */
  get fault(): string | undefined {
    return this.#watch.fault;
  }

  /** Names of settings that have changed and are used only by the next start. */
  get pending(): string[] {
    return [...this.#pending].sort();
  }

  start(): void {
    if (this.#files.size > 0) this.#watch.start();
  }

  stop(): void {
    this.#watch.stop();
  }

  /** Reads the files as the watch does every two seconds. */
  check(): Promise<void> {
    return this.#watch.check();
  }

  /** Reads the files at once. @throws Error that names those that cannot be used */
  async reload(): Promise<void> {
    await this.#watch.now();
  }

  /** For `/readyz`. @throws Error that says what is not in use, and why */
  async mustBeInUse(): Promise<void> {
    const { fault, pending } = this;
    const restart = pending.map((name) => restartFor(name));
    if (fault !== undefined) restart.unshift(fault);
    if (restart.length > 0) throw new Error(restart.join('; '));
  }

  registerMetrics(registry: Registry): void {
    const registers = [registry];
    const names = [...this.#files.keys()];
    const [pending, watch] = [this.#pending, this.#watch];
    new Gauge({
      name: 'latchkey_settings_pending',
      help: '1 for a setting whose file has changed and which needs a restart of this service to be used',
      labelNames: ['name'],
      registers,
      aggregator: 'max',
      collect() {
        for (const name of names) this.set({ name }, Number(pending.has(name)));
      },
    });
    new Gauge({
      name: 'latchkey_settings_reload_failed',
      help: '1 while the file of a setting is empty, unreadable or invalid; the log says which',
      registers,
      aggregator: 'max',
      collect() {
        this.set(Number(watch.fault !== undefined));
      },
    });
  }

  /** The environment with these texts in place of their files. An empty one is left to `load`. */
  #environment(texts: ReadonlyMap<string, string>): NodeJS.ProcessEnv {
    const env = { ...this.options.env };
    for (const [name, text] of texts) {
      if (text === '') continue;
      env[name] = text;
      delete env[`${name}_FILE`];
    }
    return env;
  }

  async #read(): Promise<Found> {
    const read = async ([name, file]: [string, string]) => {
      const found = await readFile(file, 'utf8').then(
        (text) => ({ text: textOf(text) }),
        ({ code }: NodeJS.ErrnoException) => ({ problem: `${name}_FILE: cannot read ${file} (${code})` }),
      );
      return [name, found] as const;
    };
    return new Map(await Promise.all([...this.#files].map(read)));
  }

  #use(found: Found): void {
    const problems: string[] = [];
    const changed = new Map<string, string>();
    for (const [name, one] of found) {
      if ('problem' in one) problems.push(one.problem);
      else if (one.text === this.#accepted.get(name)) continue;
      else if (one.text === '') problems.push(`${name}_FILE: ${this.#files.get(name)} is empty`);
      else changed.set(name, one.text);
    }
    // Together, as two that have swapped their values are valid only so; else one by one, so that one holds up no other.
    if (changed.size > 0 && this.#accept(changed) !== undefined) {
      for (const one of changed) {
        const problem = this.#accept(new Map([one]));
        if (problem !== undefined) problems.push(`${one[0]}_FILE: ${problem.replace(`${one[0]}: `, '')}`);
      }
    }
    if (problems.length > 0) throw new Error(problems.join('; '));
  }

  /** @returns why they are not valid; then nothing has changed */
  #accept(changed: ReadonlyMap<string, string>): string | undefined {
    let next: C;
    try {
      next = this.options.load(this.#environment(new Map([...this.#accepted, ...changed])), () => undefined);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      return error.problems.join('; ');
    }
    for (const [name, text] of changed) {
      this.#accepted.set(name, text);
      this.#take(name as keyof C & string, text, next);
    }
    return undefined;
  }

  #take(name: keyof C & string, text: string, next: C): void {
    const { live, logger } = this.options;
    if (text === this.#inUse.get(name)) {
      this.#pending.delete(name);
      logger.info(`${name}_FILE holds again what this service uses`);
    } else if (live[name]?.(next[name], this.config[name])) {
      this.config[name] = next[name];
      this.#inUse.set(name, text);
      this.#pending.delete(name);
      logger.info(`${name}_FILE has changed: its new value is in use`);
    } else {
      this.#pending.add(name);
      logger.warn(restartFor(name));
    }
  }
}

const restartFor = (name: string) => `${name}_FILE has changed: restart this service to use it`;
const textOf = (content: string) => content.replace(/\r?\n$/, '');
const keyOf = (found: Found) => JSON.stringify([...found]);

/** For {@link Live}. */
export const always = (): boolean => true;

/** For {@link Live}: addresses that differ in the password alone. */
export function onlyPassword(next: string, inUse: string): boolean {
  const without = (address: string) => {
    const url = new URL(address);
    url.password = '';
    return url.href;
  };
  return without(next) === without(inUse);
}

/**
 * A class of database connections that are opened with the address of this moment, because its password can change.
 * @param Client of `pg`, or one that extends it
 */
export function connectingTo<C extends new (...args: never[]) => object>(Client: C, address: () => string): C {
  // biome-ignore lint/suspicious/noExplicitAny: a mixin's constructor has this signature
  return class extends (Client as unknown as new (...args: any[]) => object) {
    constructor(config: object) {
      super({ ...config, connectionString: address() });
    }
  } as unknown as C;
}
