import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Asked, ledgerKey, type Requests } from '@latchkey/token-service/ledger';
import type { Machine } from '../machine.js';
import type { ShippedModules } from '../modules.js';
import type { Random } from '../random.js';

const SEGMENT = /\.\d{6}$/;
const QUICKEST_MS = 0.2;
const USUAL_MS = 10;
/** After this, the shipped thread is replaced. */
const HANGS_MS = 10_000;

/** A folder for ledgers, in memory where that exists: what is simulated is the order of things, not a disk. */
export class Disk {
  readonly dir = mkdtempSync(path.join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'latchkey-simulation-'));
  isFailing = false;
  slowestMs = USUAL_MS;

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Ledgers' folders that exist in it. */
  folders(): string[] {
    return readdirSync(this.dir).map((name) => path.join(this.dir, name));
  }

  /** A copy of all ledgers, elsewhere. */
  copy(to: string): void {
    cpSync(this.dir, to, { recursive: true });
  }

  lose(): void {
    for (const folder of this.folders()) rmSync(folder, { recursive: true });
  }

  putBack(from: string): void {
    this.lose();
    cpSync(from, this.dir, { recursive: true });
  }

  /** Segments that contain entries, with how many. */
  segments(): { file: string; stream: string; lines: string[] }[] {
    return this.folders().flatMap((folder) =>
      readdirSync(folder)
        .filter((name) => SEGMENT.test(name))
        .map((name) => {
          const file = path.join(folder, name);
          return { file, stream: name.slice(0, 36), lines: readFileSync(file, 'utf8').split('\n').filter(Boolean) };
        }),
    );
  }

  /** How many entries the state of a stream knows. */
  stated(file: string): number {
    const state = file.replace(SEGMENT, '.state');
    if (!existsSync(state)) return 0;
    const text = readFileSync(state, 'utf8');
    return (JSON.parse(text.slice(text.indexOf(' ') + 1)) as { sequence: number }).sequence;
  }

  removeStream(stream: string): void {
    for (const folder of this.folders())
      for (const name of readdirSync(folder)) if (name.startsWith(stream)) rmSync(path.join(folder, name));
  }

  cut(file: string, lines: readonly string[]): void {
    writeFileSync(file, `${lines.join('\n')}\n`);
  }
}

/** In it, the ledger of another database under the same key, which was cut. */
export function addStranger(disk: Disk, ledgerWork: ShippedModules['ledgerWork'], secret: string): void {
  const id = (last: number) => `00000000-0000-7000-8000-00000000010${last}`;
  const at = new Date(0).toISOString();
  const folder = path.join(disk.dir, 'stranger');
  const { work, close } = ledgerWork();
  work.open({ folder, key: ledgerKey(secret), database: id(4), ledger: id(0), stream: id(1), at });
  work.append({ entries: [{ e: id(2), t: 0, a: 'token.revoked', s: id(3) }] });
  work.state({ begunAt: at, at, settledAt: null, peers: [], database: id(4) });
  close();
  const { file, lines } = disk.segments().find(({ stream }) => stream === id(1))!;
  disk.cut(file, lines.slice(0, 1));
}

/** What the shipped `LedgerThread` does, in simulated time: one request after the other, until the process ends. */
export class SimulatedThread implements Asked {
  #work: ReturnType<ShippedModules['ledgerWork']>;
  #stream: string | undefined;
  #folder: string | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly modules: Pick<ShippedModules, 'ledgerWork' | 'ThreadEnded'>,
    private readonly machine: Machine,
    private readonly disk: Disk,
    private readonly random: Random,
  ) {
    this.#work = modules.ledgerWork();
    machine.onDeath(() => this.#end());
  }

  ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    const answered = this.#last.then(() => this.#ask(what, given));
    this.#last = answered.catch(() => undefined);
    return answered;
  }

  async stop(): Promise<void> {
    this.#end();
  }

  #ask<What extends keyof Requests>(what: What, given: Requests[What][0]): Promise<Requests[What][1]> {
    const ms = this.random.spread(QUICKEST_MS, this.disk.slowestMs);
    const isLate = ms > HANGS_MS;
    return new Promise((resolve, reject) => {
      this.machine.deliverAfter(Math.min(ms, HANGS_MS), () => {
        const isWrite = what === 'append' || what === 'state' || what === 'open' || what === 'adopt';
        if (isLate && this.random.chance(0.5)) {
          this.#replace();
          reject(new this.modules.ThreadEnded('the thread of the ledger has ended'));
          return;
        }
        if (isWrite && this.disk.isFailing) {
          reject(new Error('ENOSPC: no space left on device'));
          return;
        }
        try {
          const result = this.#work.work[what](structuredClone(given) as never);
          if (what === 'open') {
            this.#stream = (result as Requests['open'][1]).stream;
            this.#folder = (given as Requests['open'][0]).folder;
          }
          if (isLate) {
            this.#replace();
            reject(new this.modules.ThreadEnded('the thread of the ledger has ended'));
          } else resolve(structuredClone(result) as Requests[What][1]);
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #replace(): void {
    this.#work.close();
    this.#work = this.modules.ledgerWork();
    this.#stream = undefined;
  }

  /** A kill can come in the midst of a write. */
  #end(): void {
    this.#work.close();
    if (this.#stream === undefined || !this.random.chance(0.3)) return;
    const stream = this.#stream;
    this.#stream = undefined;
    const names = existsSync(this.#folder!) ? readdirSync(this.#folder!) : [];
    const last = names
      .filter((name) => name.startsWith(stream) && SEGMENT.test(name))
      .sort()
      .at(-1);
    if (last !== undefined) appendFileSync(path.join(this.#folder!, last), '7 aBc {"e":"0198');
  }
}
