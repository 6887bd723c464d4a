import { createConnection, createServer, type Socket } from 'node:net';

/** A TCP proxy that can break its connections as networks do. */
export interface FaultyLink extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** Connections open now. */
  readonly open: number;
  /** The same address through this link. */
  url(original: string): string;
  /** Resets every connection and refuses new ones until `heal()`. */
  cut(): void;
  /** Keeps connections open and passes nothing on in that direction (default: both) until `heal()`. */
  stall(direction?: 'toTarget' | 'fromTarget' | 'both'): void;
  /** Passes everything on this much later, in order, in both directions, until `heal()`. */
  delay(milliseconds: number): void;
  /** Works like a plain connection again; what was stalled or delayed goes on. */
  heal(): void;
  /** New connections go to these addresses in turn; those that are open stay where they are. */
  lead(...targets: [LinkTarget, ...LinkTarget[]]): void;
  close(): Promise<void>;
}

/** An address, or a URL whose host and port count. */
export type LinkTarget = string | { host?: string; port: number };

/** What a direction buffers before its sender has to wait. */
const bufferedBytesMax = 1_048_576;

/** Opens a port of 127.0.0.1 that passes on to `target` until its methods change that. */
export async function faultyLink(target: LinkTarget): Promise<FaultyLink> {
  let targets = [addressOf(target)];
  let turn = 0;
  const state = { cut: false, stalled: { toTarget: false, fromTarget: false }, delayMs: 0 };
  const directions = new Set<Direction>();
  const sockets = new Set<Socket>();

  const server = createServer({ allowHalfOpen: true }, (near) => {
    if (state.cut) {
      near.resetAndDestroy();
      return;
    }
    const far = createConnection({ ...targets[turn++ % targets.length]!, allowHalfOpen: true });
    const pair = [
      new Direction(near, far, () => ({ stalled: state.stalled.toTarget, delayMs: state.delayMs })),
      new Direction(far, near, () => ({ stalled: state.stalled.fromTarget, delayMs: state.delayMs })),
    ];
    for (const direction of pair) directions.add(direction);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => socket.destroy());
      socket.on('close', (hadError) => {
        sockets.delete(socket);
        const other = socket === near ? far : near;
        // An orderly end travels through its direction; anything else ends the other side as abruptly.
        if (hadError || !socket.readableEnded) other.resetAndDestroy();
        for (const direction of pair) if (near.destroyed && far.destroyed) directions.delete(direction);
      });
    }
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      if (address && typeof address === 'object') resolve(address.port);
    });
  });
  const pumpAll = () => {
    for (const direction of directions) direction.pump();
  };
  const reset = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  const close = async () => {
    reset();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    host: '127.0.0.1',
    port,
    get open() {
      return Math.ceil(sockets.size / 2);
    },
    url: (original) => {
      const moved = new URL(original);
      moved.hostname = '127.0.0.1';
      moved.port = String(port);
      return moved.href;
    },
    cut: () => {
      state.cut = true;
      reset();
    },
    stall: (direction = 'both') => {
      for (const each of ['toTarget', 'fromTarget'] as const) {
        if (direction === each || direction === 'both') state.stalled[each] = true;
      }
    },
    delay: (milliseconds) => {
      state.delayMs = milliseconds;
    },
    heal: () => {
      state.cut = false;
      state.stalled = { toTarget: false, fromTarget: false };
      state.delayMs = 0;
      pumpAll();
    },
    lead: (...others) => {
      targets = others.map(addressOf);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** One direction of one connection: what arrived, in order, and when. `null` is the end. */
class Direction {
  private readonly buffered: { chunk: Buffer | null; arrivedAt: number }[] = [];
  private bufferedBytes = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly from: Socket,
    private readonly to: Socket,
    private readonly fault: () => { stalled: boolean; delayMs: number },
  ) {
    from.on('data', (chunk) => this.buffer(chunk));
    from.on('end', () => this.buffer(null));
    to.on('close', () => clearTimeout(this.timer));
  }

  private buffer(chunk: Buffer | null): void {
    this.buffered.push({ chunk, arrivedAt: performance.now() });
    this.bufferedBytes += chunk?.length ?? 0;
    if (this.bufferedBytes > bufferedBytesMax) this.from.pause();
    this.pump();
  }

  pump(): void {
    clearTimeout(this.timer);
    for (let next = this.buffered[0]; next && !this.fault().stalled && !this.to.destroyed; next = this.buffered[0]) {
      const waitMs = next.arrivedAt + this.fault().delayMs - performance.now();
      if (waitMs > 0) {
        this.timer = setTimeout(() => this.pump(), Math.ceil(waitMs));
        return;
      }
      this.buffered.shift();
      if (next.chunk === null) {
        this.to.end();
        return;
      }
      this.bufferedBytes -= next.chunk.length;
      this.to.write(next.chunk);
    }
    if (this.bufferedBytes <= bufferedBytesMax) this.from.resume();
  }
}

function addressOf(target: LinkTarget): { host: string; port: number } {
  if (typeof target !== 'string') return { host: '127.0.0.1', ...target };
  const { hostname, port } = new URL(target);
  if (!port) throw new TypeError('faultyLink: the target URL names no port');
  return { host: hostname, port: Number(port) };
}
