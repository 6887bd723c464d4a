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
  /** This side has ended the connection, or destroyed it. */
  ended = false;
  readonly connection: CallerConnection;
  readonly deps: { -readonly [K in keyof ConnectionDeps]: ConnectionDeps[K] };
  #paused = false;

  constructor(
    onRequest: (request: CallerRequest) => void,
    onResponse: (request: CallerRequest) => void = () => undefined,
  ) {
    super();
    this.deps = {
      onRequest,
      onResponse,
      onClosed: () => undefined,
      date: '',
      isStopping: false,
      surplus: 0,
      nowMs: 0,
    };
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
    this.written += typeof bytes === 'string' ? bytes : bytes.toString('latin1');
    return !this.writableNeedDrain;
  }

  end(): void {
    this.ended = true;
  }

  destroy(): void {
    if (this.ended) return;
    this.ended = true;
    this.emit('close');
  }

  resetAndDestroy(): void {
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
