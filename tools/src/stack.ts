import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import {
  canListen,
  claimFolder,
  type FolderClaim,
  FolderInUse,
  freePort,
  type LocalServer,
  startPostgres,
  startRedis,
} from '@latchkey/local-stack';
import { migration, type Places, services } from './environment.js';
import type { Output } from './output.js';
import { readOrMakeSecrets, type Secrets, writePrivate } from './secrets.js';
import { runToEnd, startService } from './service.js';
import { type LauncherSettings, type PortName, portNames } from './settings.js';
import { Watched } from './watched.js';

/** A start that cannot be, told in sentences for a person; a stack trace would not help. */
export class CannotStart extends Error {
  override readonly name = 'CannotStart';
}

export interface StackContext {
  /** The repository. */
  root: string;
  env: NodeJS.ProcessEnv;
  settings: LauncherSettings;
  output: Output;
}

/**
 * All of Latchkey on this machine: PostgreSQL and Redis (those that the environment does not name), the schema, every
 * service and the demo upstream; each is watched and started again when it ends by itself.
 */
export class Stack {
  private readonly databases: Watched[] = [];
  private readonly services: Watched[] = [];
  private claim: FolderClaim | undefined;
  private ready = false;
  private stopped: Promise<void> | undefined;
  private ended = new AbortController();
  places!: Places;
  secrets!: Secrets;

  constructor(private readonly context: StackContext) {}

  private file(name: string): string {
    return path.join(this.context.settings.home, name);
  }

  /** Folder of the files that hold secrets. */
  get secretsDir(): string {
    return this.file('secrets');
  }

  /** Whether this home has never been ready before. */
  get isFirstStart(): boolean {
    return !existsSync(this.file('settled'));
  }

  /** Remembers that the first start is over: what is shown once has been shown. */
  settle(): void {
    writeFileSync(this.file('settled'), `${new Date().toISOString()}\n`);
  }

  /**
   * Starts everything in order, each part once what it needs is ready, and writes ready.json.
   *
   * @throws CannotStart when the home or a port is in use, a part does not come up, or `stop` was called meanwhile;
   *   all is stopped again then
   */
  async start(): Promise<void> {
    try {
      await this.startInOrder();
    } catch (error) {
      const broken = this.ended.signal.aborted;
      await this.stop();
      if (broken) throw new CannotStart('stopped before everything was ready');
      throw new CannotStart((error as Error).message, { cause: error });
    }
  }

  /** Ends everything in the opposite order of its start; nothing is left running. Harmless when repeated. */
  stop(): Promise<void> {
    this.stopped ??= this.stopInOrder();
    return this.stopped;
  }

  private async startInOrder(): Promise<void> {
    const { root, env, settings, output } = this.context;
    this.claim = claimHome(settings.home);
    rmSync(this.file('ready.json'), { force: true });
    const ports = await choosePorts(settings);
    this.secrets = readOrMakeSecrets(this.secretsDir, env, settings.adminPassword);

    const [postgres, redis] = await this.all([
      settings.databaseUrl ? null : this.database('postgres', (port) => startPostgres(this.server('postgres', port))),
      settings.redisUrl ? null : this.database('redis', (port) => startRedis(this.server('redis', port))),
    ]);
    const url = localUrl(settings.host, ports.PORT);
    this.places = {
      ports,
      url,
      publicUrl: settings.publicUrl ?? url,
      databaseUrl: settings.databaseUrl ?? (postgres as LocalServer).url,
      redisUrl: settings.redisUrl ?? (redis as LocalServer).url,
      ownDatabase: postgres !== null,
    };
    await this.timed('schema', runToEnd(root, migration(env, this.places, this.secrets), output));
    this.goOn();

    const notes = this.file('processes');
    mkdirSync(notes, { recursive: true });
    for (const group of services(env, settings, this.places, this.secrets)) {
      const starts = group.map((spec) => {
        const start = (signal: AbortSignal) => startService(root, spec, notes, output, signal);
        const service = new Watched(spec.name, start, output.say, () => this.writeReady());
        this.services.push(service);
        return this.timed(spec.name, service.start());
      });
      await this.all(starts);
    }
    this.ready = true;
    this.writeReady();
  }

  private async stopInOrder(): Promise<void> {
    this.ended.abort();
    this.ready = false;
    const authority = this.services.filter(({ name }) => name === 'token-service');
    const others = this.services.filter(({ name }) => name !== 'token-service');
    for (const group of [others, authority, this.databases]) await Promise.all(group.map((each) => each.stop()));
    if (!this.claim) return;
    rmSync(this.file('ready.json'), { force: true });
    this.claim.release();
  }

  private goOn(): void {
    if (this.ended.signal.aborted) throw new Error('stopped');
  }

  /** Waits for all, so that nothing is stopped while its neighbours are still coming up; throws what the first threw. */
  private async all<const T extends readonly unknown[]>(
    starts: T,
  ): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
    const results = await Promise.allSettled(starts);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
    this.goOn();
    return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as never;
  }

  private async timed<T>(what: string, work: Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await work;
    this.context.output.say(`  ${what} ready after ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
    return result;
  }

  /** A server that, once its port is known, always comes back at the same one. */
  private database(name: string, startAt: (port: number | undefined) => Promise<LocalServer>): Promise<LocalServer> {
    let port: number | undefined;
    const start = async () => {
      const server = await startAt(port);
      port = server.port;
      return server;
    };
    const watched = new Watched<LocalServer>(name, start, this.context.output.say, () => this.writeReady());
    this.databases.push(watched);
    return this.timed(name, watched.start());
  }

  private server(name: string, port: number | undefined) {
    const { output } = this.context;
    const onLine = (line: string) => output.detail(name, line);
    return { dir: this.file(name), log: output.say, onLine, ...(port !== undefined && { port }) };
  }

  private writeReady(): void {
    if (!this.ready) return;
    const { settings } = this.context;
    const { ports, publicUrl, databaseUrl, redisUrl } = this.places;
    const running = [...this.databases, ...this.services];
    const pidOf = (name: string) => running.find((each) => each.name === name)?.running?.pid ?? null;
    const ready = {
      url: publicUrl,
      apiUrl: `http://127.0.0.1:${ports.API_PORT}`,
      opsUrl: `http://127.0.0.1:${ports.OPS_PORT}`,
      rpcAddress: `127.0.0.1:${ports.RPC_PORT}`,
      authzAddress: `127.0.0.1:${ports.AUTHZ_PORT}`,
      adminEmail: settings.adminEmail,
      adminPassword: this.secrets.adminPassword,
      databaseUrl,
      redisUrl,
      pids: {
        tokenService: pidOf('token-service'),
        gateway: pidOf('gateway'),
        jobs: pidOf('jobs'),
        postgres: pidOf('postgres'),
        redis: pidOf('redis'),
      },
    };
    writePrivate(this.file('ready.json'), `${JSON.stringify(ready, null, 2)}\n`);
  }
}

function claimHome(home: string): FolderClaim {
  mkdirSync(home, { recursive: true });
  try {
    const claim = claimFolder(home);
    // PostgreSQL's own user, should root start this, has to get through; what is inside is for its owner alone.
    chmodSync(home, process.getuid?.() === 0 ? 0o711 : 0o700);
    return claim;
  } catch (error) {
    if (!(error instanceof FolderInUse)) throw error;
    throw new Error(
      `Latchkey already runs from ${home} (process ${error.pid}). Stop it first, or set LATCHKEY_HOME to another ` +
        'folder and PORT, OPS_PORT, API_PORT, RPC_PORT, AUTHZ_PORT and DEMO_PORT to other ports (0 takes a free one)',
    );
  }
}

/** The address of the public door as seen from this machine. */
function localUrl(host: string, port: number): string {
  if (host === '0.0.0.0' || host === '::') return `http://127.0.0.1:${port}`;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Fills in the ports that may be any, and makes sure of the others before anything is started. */
async function choosePorts(settings: LauncherSettings): Promise<Record<PortName, number>> {
  const chosen = { ...settings.ports };
  const wanted: [string, number][] = [];
  // The ops ports of token-service and jobs follow the gateway's, so three free ones in a row are needed.
  const widthOf = (name: PortName) => (name === 'OPS_PORT' ? 3 : 1);
  const isChosen = (port: number) =>
    portNames.some((name) => chosen[name] !== 0 && port >= chosen[name] && port < chosen[name] + widthOf(name));
  for (const name of portNames) {
    const width = widthOf(name);
    if (chosen[name] === 0) {
      let first: number;
      do first = await freePorts(width);
      while (Array.from({ length: width }, (_, i) => first + i).some(isChosen));
      chosen[name] = first;
    }
    for (let i = 0; i < width; i++) wanted.push([i === 0 ? name : `${name} + ${i}`, chosen[name] + i]);
  }
  for (const [index, [name, port]] of wanted.entries()) {
    const other = wanted.slice(0, index).find(([, earlier]) => earlier === port);
    if (other) throw new Error(`${name} and ${other[0]} are both ${port}; give one of them another port`);
    if (!(await canListen(port, name === 'PORT' ? settings.host : '127.0.0.1'))) {
      throw new Error(
        `port ${port} (${name}) cannot be listened on, another program has it; stop that, or set ${name.split(' ')[0]} to another port`,
      );
    }
  }
  return chosen;
}

async function freePorts(width: number): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const first = await freePort();
    const all = Array.from({ length: width }, (_, i) => first + i);
    const free = await Promise.all(all.map((port) => canListen(port)));
    if (!free.includes(false)) return first;
  }
  throw new Error(`found no ${width} free ports in a row`);
}
