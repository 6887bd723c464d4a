import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import {
  canListen,
  claimFolder,
  type FolderClaim,
  FolderInUse,
  freePorts,
  type LocalServer,
  startPostgres,
  startRedis,
} from '@latchkey/local-stack';
import { type Addresses, migration, services } from './environment.js';
import type { Output } from './output.js';
import { readOrCreateSecrets, type Secrets, writePrivate } from './secrets.js';
import { runToEnd, startService } from './service.js';
import { type LauncherSettings, type PortName, portNames } from './settings.js';
import { SupervisedProcess } from './supervised-process.js';

/** A failed start with a message for people; a stack trace would not help. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

export interface StackContext {
  /** The repository. */
  root: string;
  env: NodeJS.ProcessEnv;
  settings: LauncherSettings;
  output: Output;
}

/**
 * All of Latchkey on this machine: PostgreSQL and Redis (unless the environment names them), the schema, every service
 * and the demo upstream; each is restarted when it exits by itself.
 */
export class Stack {
  private readonly databases: SupervisedProcess[] = [];
  private readonly services: SupervisedProcess[] = [];
  private claim: FolderClaim | undefined;
  private ready = false;
  private stopped: Promise<void> | undefined;
  private ended = new AbortController();
  addresses!: Addresses;
  secrets!: Secrets;

  constructor(private readonly context: StackContext) {}

  private file(name: string): string {
    return path.join(this.context.settings.home, name);
  }

  /** Folder of the files with secrets. */
  get secretsDir(): string {
    return this.file('secrets');
  }

  /** Whether this home has never been ready before. */
  get isFirstStart(): boolean {
    return !existsSync(this.file('settled'));
  }

  /** Records that the first start is done and its secrets have been shown. */
  recordFirstStart(): void {
    writeFileSync(this.file('settled'), `${new Date().toISOString()}\n`);
  }

  /**
   * Starts everything in order, dependencies first, and writes ready.json.
   *
   * @throws StartError when the home or a port is in use, a part does not start, or `stop` was called meanwhile;
   *   everything is stopped then
   */
  async start(): Promise<void> {
    try {
      await this.startInOrder();
    } catch (error) {
      const wasStopped = this.ended.signal.aborted;
      await this.stop();
      if (wasStopped) throw new StartError('stopped before everything was ready');
      throw new StartError((error as Error).message, { cause: error });
    }
  }

  /** Stops everything in reverse order; nothing is left running. Idempotent. */
  stop(): Promise<void> {
    this.stopped ??= this.stopInOrder();
    return this.stopped;
  }

  private async startInOrder(): Promise<void> {
    const { root, env, settings, output } = this.context;
    this.claim = claimHome(settings.home);
    rmSync(this.file('ready.json'), { force: true });
    if (existsSync(this.file(restoringMark)))
      throw new Error(`a restore into ${settings.home} was not finished; remove the folder, and restore again`);
    const ports = await choosePorts(settings);
    this.secrets = readOrCreateSecrets(this.secretsDir, env, settings.adminPassword);

    const [postgres, redis] = await this.all([
      settings.databaseUrl ? null : this.database('postgres', (port) => startPostgres(this.server('postgres', port))),
      settings.redisUrl ? null : this.database('redis', (port) => startRedis(this.server('redis', port))),
    ]);
    const url = localUrl(settings.host, ports.PORT);
    this.addresses = {
      ports,
      url,
      publicUrl: settings.publicUrl ?? url,
      databaseUrl: settings.databaseUrl ?? (postgres as LocalServer).url,
      redisUrl: settings.redisUrl ?? (redis as LocalServer).url,
      ownDatabase: postgres !== null,
    };
    await this.timed('schema', runToEnd(root, migration(env, this.addresses, this.secrets), output));
    this.throwIfStopped();

    const processesDir = this.file('processes');
    mkdirSync(processesDir, { recursive: true });
    for (const group of services(env, settings, this.addresses, this.secrets)) {
      const starts = group.map((spec) => {
        const start = (signal: AbortSignal) => startService(root, spec, processesDir, output, signal);
        const service = new SupervisedProcess(spec.name, start, output.say, () => this.writeReady());
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
    const tokenService = this.services.filter(({ name }) => name === 'token-service');
    const others = this.services.filter(({ name }) => name !== 'token-service');
    for (const group of [others, tokenService, this.databases]) await Promise.all(group.map((each) => each.stop()));
    if (!this.claim) return;
    rmSync(this.file('ready.json'), { force: true });
    this.claim.release();
  }

  private throwIfStopped(): void {
    if (this.ended.signal.aborted) throw new Error('stopped');
  }

  /** Waits for all, so that nothing is stopped while others are still starting. @throws what the first threw */
  private async all<const T extends readonly unknown[]>(
    starts: T,
  ): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
    const results = await Promise.allSettled(starts);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
    this.throwIfStopped();
    return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as never;
  }

  private async timed<T>(what: string, work: Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await work;
    this.context.output.say(`  ${what} ready after ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
    return result;
  }

  /** A server that restarts at the same port, once that is known. */
  private database(name: string, startAt: (port: number | undefined) => Promise<LocalServer>): Promise<LocalServer> {
    let port: number | undefined;
    const start = async () => {
      const server = await startAt(port);
      port = server.port;
      return server;
    };
    const supervised = new SupervisedProcess<LocalServer>(name, start, this.context.output.say, () =>
      this.writeReady(),
    );
    this.databases.push(supervised);
    return this.timed(name, supervised.start());
  }

  private server(name: string, port: number | undefined) {
    const { output } = this.context;
    const onLine = (line: string) => output.detail(name, line);
    return { dir: this.file(name), log: output.say, onLine, ...(port !== undefined && { port }) };
  }

  private writeReady(): void {
    if (!this.ready) return;
    const { settings } = this.context;
    const { ports, publicUrl, databaseUrl, redisUrl } = this.addresses;
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

/** The file in a home that is being restored, until it is complete. */
export const restoringMark = 'restoring';

/** @throws Error when Latchkey runs in it */
export function claimHome(home: string): FolderClaim {
  mkdirSync(home, { recursive: true });
  try {
    const claim = claimFolder(home);
    // Started by root, PostgreSQL's user has to pass through; the content is accessible only to its owner.
    chmodSync(home, process.getuid?.() === 0 ? 0o711 : 0o700);
    return claim;
  } catch (error) {
    if (!(error instanceof FolderInUse)) throw error;
    throw new Error(
      `Latchkey already runs in ${home} (process ${error.pid}). Stop it first, or set LATCHKEY_HOME to another ` +
        'folder and PORT, OPS_PORT, API_PORT, RPC_PORT, AUTHZ_PORT and DEMO_PORT to other ports (0 takes a free one)',
    );
  }
}

/** URL of the gateway on this machine. */
function localUrl(host: string, port: number): string {
  if (host === '0.0.0.0' || host === '::') return `http://127.0.0.1:${port}`;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Chooses free ports for those set to 0, and checks the others before anything is started. */
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
      do [first] = (await freePorts(width)) as [number];
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
        `port ${port} (${name}) is in use by another program; stop it, or set ${name.split(' ')[0]} to another port`,
      );
    }
  }
  return chosen;
}
