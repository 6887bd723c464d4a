import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { CallerConnection, type ConnectionDeps } from '../src/engine/caller-connection.js';
import type { CallerRequest } from '../src/engine/index.js';

/** A caller's socket without a network, with the connection that reads it. */
export class CallerSocket extends EventEmitter {
  /** The caller has not read what was written. */
  writableNeedDrain = false;
  /** All that was written, in Latin-1. */
  written = '';
  /** Of these bytes, those that have not left: set by a test, and gone with `drain`. */
  writableLength = 0;
  writableFinished = false;
  /** This side has ended the connection, or destroyed it. */
  ended = false;
  destroyed = false;
  /** Destroyed so that the caller sees a fault. */
  wasReset = false;
  /** What was thrown while the connection was read; thrown on while undefined. */
  faults: unknown[] | undefined;
  readonly connection: CallerConnection;
  readonly deps: { -readonly [K in keyof ConnectionDeps]: ConnectionDeps[K] };
  #paused = false;
  #onFinish: (() => void) | undefined;

  constructor(
    onRequest: (request: CallerRequest) => void,
    onResponse: (request: CallerRequest) => void = () => undefined,
  ) {
    super();
    const onFault = (error: unknown) => {
      if (!this.faults) throw error;
      this.faults.push(error);
    };
    const onClosed = () => undefined;
    this.deps = { onRequest, onResponse, onClosed, onFault, date: '', isStopping: false, surplus: 0, nowMs: 0 };
    const peer = { ip: '127.0.0.1', trusted: false, isTrusted: () => false };
    this.connection = new CallerConnection(this as unknown as Socket, peer, this.deps);
  }

  /** As the listener does. */
  tick(nowMs: number): void {
    this.deps.nowMs = nowMs;
    this.connection.tick(nowMs);
  }

  receive(bytes: string | Buffer): void {
    this.emit('data', typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  write(bytes: string | Buffer): boolean {
    // A socket would fail, and lose what has not left yet.
    if (this.ended && !this.destroyed) throw new Error('written after the end');
    if (this.destroyed) return false;
    this.written += typeof bytes === 'string' ? bytes : bytes.toString('latin1');
    return !this.writableNeedDrain;
  }

  end(onFinish?: () => void): void {
    this.ended = true;
    this.#onFinish = onFinish;
    if (this.writableLength === 0) this.#finish();
  }

  /** The caller has read what was written. */
  drain(): void {
    this.writableLength = 0;
    this.writableNeedDrain = false;
    this.emit('drain');
    if (this.ended) this.#finish();
  }

  #finish(): void {
    this.writableFinished = true;
    this.#onFinish?.();
    this.#onFinish = undefined;
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.ended = true;
    this.emit('close');
  }

  resetAndDestroy(): void {
    this.wasReset = !this.destroyed;
    this.destroy();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
  }

  isPaused(): boolean {
    return this.#paused;
  }
}
