import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ledgerKey } from '@latchkey/token-service/ledger';
import type { ShippedModules } from '../modules.js';

export const SEGMENT = /\.\d{6}$/;
const STATE = /\.state$/;
const USUAL_MS = 10;

const newFolder = () => mkdtempSync(path.join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'latchkey-simulation-'));

/** A folder for ledgers, in memory where that exists: what is simulated is the order of things, not a disk. */
export class Disk {
  dir = newFolder();
  isFailing = false;
  /** When it last began to work again. */
  repairedMs = 0;
  slowestMs = USUAL_MS;
  /** What is not mounted now, copies, and folders that were configured before. */
  readonly #away = newFolder();
  #moved = 0;
  /** Where the folders are in whose places there are files. */
  readonly #obstructed = new Set<string>();

  remove(): void {
    for (const one of [this.dir, this.#away]) rmSync(one, { recursive: true, force: true });
  }

  repair(nowMs: number): void {
    if (this.isFailing) this.repairedMs = nowMs;
    Object.assign(this, { isFailing: false, slowestMs: USUAL_MS });
  }

  /** Ledgers' folders that can be read. */
  folders(): string[] {
    return readdirSync(this.dir, { withFileTypes: true }).flatMap((one) =>
      one.isDirectory() && !one.name.startsWith('.') ? path.join(this.dir, one.name) : [],
    );
  }

  /** The id of the ledger in a folder; undefined: there is none. */
  ledgerIn(folder: string): string | undefined {
    const file = path.join(folder, 'ledger');
    if (!existsSync(file)) return undefined;
    const text = readFileSync(file, 'utf8');
    return (JSON.parse(text.slice(text.indexOf(' ') + 1)) as { ledger: string }).ledger;
  }

  /** Ids of the ledgers that are there, whether they can be read or not. */
  ledgers(): Set<string | undefined> {
    return new Set([...this.folders(), ...this.#obstructed].map((folder) => this.ledgerIn(folder)));
  }

  /** A copy of all ledgers, elsewhere. @returns where */
  copy(): string {
    const to = this.#place();
    cpSync(this.dir, to, { recursive: true });
    return to;
  }

  lose(): void {
    rmSync(this.dir, { recursive: true });
    this.#obstructed.clear();
    mkdirSync(this.dir);
  }

  putBack(from: string): void {
    this.lose();
    cpSync(from, this.dir, { recursive: true });
  }

  /** From now on LEDGER_DIR is another folder, without any ledger. */
  configureAnew(): void {
    renameSync(this.dir, this.#place());
    this.#obstructed.clear();
    mkdirSync(this.dir);
  }

  /** Some folders are not there any more: their disk is not mounted. @returns where they are */
  moveAway(names: readonly string[]): string {
    const to = this.#place();
    mkdirSync(to);
    for (const name of names) renameSync(path.join(this.dir, name), path.join(to, name));
    return to;
  }

  /** They are there again. @param aside how what is in their place is named then, beside them; undefined: that is lost */
  moveBack(from: string, aside: string | undefined): void {
    for (const name of readdirSync(from)) {
      const folder = path.join(this.dir, name);
      if (existsSync(folder) && aside !== undefined) renameSync(folder, `${folder}.${aside}-${this.#moved++}`);
      rmSync(folder, { recursive: true, force: true });
      renameSync(path.join(from, name), folder);
    }
  }

  /**
   * From now on a ledger cannot be read.
   * @param what all of it, or how far its streams reach
   * @returns makes it readable again
   */
  obstruct(folder: string, what: 'folder' | 'states'): () => void {
    const files = what === 'folder' ? [] : readdirSync(folder).filter((name) => STATE.test(name));
    const paths = (what === 'folder' ? [folder] : files.map((name) => path.join(folder, name))).filter(
      (one) => what === 'folder' || statSync(one).isFile(),
    );
    const undo = paths.map((one) => {
      const to = this.#place();
      renameSync(one, to);
      if (what === 'folder') this.#obstructed.add(to);
      // Neither a folder can be read as a file, nor a file as a folder.
      if (what === 'folder') writeFileSync(one, '');
      else mkdirSync(one);
      return () => {
        this.#obstructed.delete(to);
        if (!existsSync(one)) return;
        rmSync(one, { recursive: true });
        renameSync(to, one);
      };
    });
    return () => {
      for (const one of undo) one();
    };
  }

  #place(): string {
    return path.join(this.#away, String(this.#moved++));
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
    if (!statSync(state, { throwIfNoEntry: false })?.isFile()) return 0;
    const text = readFileSync(state, 'utf8');
    return (JSON.parse(text.slice(text.indexOf(' ') + 1)) as { sequence: number }).sequence;
  }

  removeStream(stream: string): void {
    for (const folder of this.folders())
      for (const name of readdirSync(folder))
        if (name.startsWith(stream)) rmSync(path.join(folder, name), { recursive: true });
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
