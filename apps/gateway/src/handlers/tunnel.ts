import type { DenialReason } from '@latchkey/contracts';
import { isTemporary } from '../check/index.js';
import type { CallerRequest, RawSink, UpstreamConnection } from '../engine/index.js';
import type { ResponseHead } from '../http/index.js';
import {
  CLOSE_REVOKED,
  CLOSE_UNAVAILABLE,
  closeFrame,
  FrameBoundary,
  type OpenExchanges,
  type Timed,
} from '../streams/index.js';

/** Watches a token: see Verifier.watch. */
export type Watch = (cut: (reason: DenialReason) => void) => () => void;

/** How long a caller has to read its close frame. */
const CLOSE_FRAME_MS = 1_000;
/** How long one side can go on when the other has ended. */
export const HALF_CLOSED_MS = 30_000;
/** How long a side can read nothing of what it was sent: the other is not read meanwhile, so its end would not be noticed. */
export const TUNNEL_STALL_MS = 120_000;

/** A WebSocket between a caller and an upstream: bytes both ways, closed once its token becomes invalid. */
export class Tunnel implements RawSink, Timed {
  readonly endless = true;
  readonly #boundary = new FrameBoundary();
  #unwatch: (() => void) | undefined;
  #halfClosedAtMs: number | undefined;
  /** Since when a side has not read what it was sent. */
  #callerStalledAtMs: number | undefined;
  #upstreamStalledAtMs: number | undefined;
  #over = false;

  constructor(
    private readonly caller: CallerRequest,
    private readonly upstream: UpstreamConnection,
    private readonly watch: Watch | undefined,
    private readonly open: OpenExchanges,
  ) {}

  /**
   * Begins when the upstream has accepted the handshake.
   * @param first bytes that came with its response
   */
  start(head: ResponseHead, first: Buffer): void {
    const { caller, upstream } = this;
    this.open.add(this);
    const lines = `${head.lines}${SWITCHED}`;
    caller.begin(101, head.reason, lines, 'none', -1, true, '');
    upstream.handOver(this);
    if (first.length > 0) this.onData(first, 0, first.length);
    caller.tunnel({
      onData: (bytes) => {
        if (this.#over || upstream.write(bytes)) return;
        this.#upstreamStalledAtMs ??= this.open.nowMs;
        caller.pause();
      },
      onEnd: () => {
        this.#halfClosed();
        if (!this.#over) upstream.finish('');
      },
      onDrain: () => {
        this.#callerStalledAtMs = undefined;
        upstream.resume();
      },
      onClose: () => this.#end(),
    });
    if (this.#over || !this.watch) return;
    const unwatch = this.watch((reason) => this.#cut(reason));
    if (this.#over) unwatch();
    else this.#unwatch = unwatch;
  }

  // The upstream's side.

  onData(buffer: Buffer, start: number, end: number): void {
    if (this.#over) return;
    const bytes = Buffer.from(buffer.subarray(start, end));
    this.#boundary.pass(bytes);
    if (this.caller.writeTunnel(bytes)) return;
    this.#callerStalledAtMs ??= this.open.nowMs;
    this.upstream.pause();
  }

  onEnd(): void {
    this.#halfClosed();
    if (!this.#over) this.caller.endTunnel();
  }

  #halfClosed(): void {
    this.#halfClosedAtMs ??= this.open.nowMs;
  }

  onFailure(): void {
    this.#end();
  }

  onDrain(): void {
    this.#upstreamStalledAtMs = undefined;
    if (!this.#over) this.caller.resume();
  }

  #cut(reason: DenialReason): void {
    if (this.#over) return;
    this.#release();
    // Inside a frame a close frame would be read as payload.
    if (!this.#boundary.between) return void this.caller.destroyTunnel();
    this.caller.writeTunnel(
      isTemporary(reason)
        ? closeFrame(CLOSE_UNAVAILABLE, reason)
        : closeFrame(CLOSE_REVOKED, 'token no longer accepted'),
    );
    this.caller.endTunnel();
    setTimeout(() => this.caller.destroyTunnel(), CLOSE_FRAME_MS).unref();
  }

  /** Releases everything but the caller's connection. */
  #release(): void {
    this.#over = true;
    this.open.remove(this);
    this.#unwatch?.();
    this.upstream.destroy();
  }

  #end(): void {
    if (this.#over) return;
    this.#release();
    // What was written last can be a close frame.
    this.caller.endTunnel();
    setTimeout(() => this.caller.destroyTunnel(), CLOSE_FRAME_MS).unref();
  }

  /** A WebSocket can be silent as long as its token is valid, but each side has to read, and to end once the other has. */
  tick(nowMs: number): void {
    const passed = (since: number | undefined, ms: number) => since !== undefined && nowMs - since > ms;
    if (
      passed(this.#halfClosedAtMs, HALF_CLOSED_MS) ||
      passed(this.#callerStalledAtMs, TUNNEL_STALL_MS) ||
      passed(this.#upstreamStalledAtMs, TUNNEL_STALL_MS)
    )
      this.#end();
  }

  abandon(): void {
    if (this.#over) return;
    if (this.#unwatch) this.#cut('unavailable');
    else this.#end();
  }
}

const SWITCHED = 'connection: Upgrade\r\nupgrade: websocket\r\n';
