import { createConnection, createServer, type Socket } from 'node:net';

/** A TCP connection in between, and what can go wrong with one. */
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

/** What a direction may hold back before its sender is made to wait. */
const heldBytesMax = 1_048_576;

/** Opens a port of 127.0.0.1 that passes on to `target` until told otherwise. */
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

/** One way of one connection: what came in, in order, with when it may go on. `null` is the end. */
class Direction {
  private readonly held: { chunk: Buffer | null; cameAt: number }[] = [];
  private heldBytes = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly from: Socket,
    private readonly to: Socket,
    private readonly fault: () => { stalled: boolean; delayMs: number },
  ) {
    from.on('data', (chunk) => this.hold(chunk));
    from.on('end', () => this.hold(null));
    to.on('close', () => clearTimeout(this.timer));
  }

  private hold(chunk: Buffer | null): void {
    this.held.push({ chunk, cameAt: performance.now() });
    this.heldBytes += chunk?.length ?? 0;
    if (this.heldBytes > heldBytesMax) this.from.pause();
    this.pump();
  }

  pump(): void {
    clearTimeout(this.timer);
    for (let next = this.held[0]; next && !this.fault().stalled && !this.to.destroyed; next = this.held[0]) {
      const waitMs = next.cameAt + this.fault().delayMs - performance.now();
      if (waitMs > 0) {
        this.timer = setTimeout(() => this.pump(), Math.ceil(waitMs));
        return;
      }
      this.held.shift();
      if (next.chunk === null) {
        this.to.end();
        return;
      }
      this.heldBytes -= next.chunk.length;
      this.to.write(next.chunk);
    }
    if (this.heldBytes <= heldBytesMax) this.from.resume();
  }
}

function addressOf(target: LinkTarget): { host: string; port: number } {
  if (typeof target !== 'string') return { host: '127.0.0.1', ...target };
  const { hostname, port } = new URL(target);
  if (!port) throw new TypeError('faultyLink: the target URL names no port');
  return { host: hostname, port: Number(port) };
}
