import { WebSocket } from 'ws';

export interface ServerEvent {
  event: string;
  data: Record<string, unknown>;
}

/** An open stream, and when and how it ended. */
export interface OpenStream {
  /** The next message that is of this kind. Rejects when the stream ends first. */
  next(kind: string): Promise<Record<string, unknown>>;
  /** Fulfilled with `performance.now()` at its end, and the WebSocket close code where there is one. */
  ended: Promise<{ at: number; code?: number }>;
  close(): void;
}

/** Messages in the order they arrived, and at most one reader that waits for the next. */
class Inbox {
  readonly #messages: ServerEvent[] = [];
  #wake: (() => void) | undefined;
  #over = false;

  push(message: ServerEvent): void {
    this.#messages.push(message);
    this.#wake?.();
  }

  end(): void {
    this.#over = true;
    this.#wake?.();
  }

  async next(kind: string): Promise<Record<string, unknown>> {
    for (;;) {
      const message = this.#messages.shift();
      if (message?.event === kind) return message.data;
      if (message) continue;
      if (this.#over) throw new Error(`the stream ended before a message ${kind}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** Opens a text/event-stream; a JSON-RPC message counts as an event of its method's name, or `response`. */
export async function openEvents(url: string, init: RequestInit): Promise<OpenStream> {
  const stop = new AbortController();
  const response = await fetch(url, { ...init, signal: stop.signal });
  if (response.status !== 200 || !response.headers.get('content-type')?.startsWith('text/event-stream')) {
    throw new Error(`no event stream: ${response.status} ${await response.text()}`);
  }
  const inbox = new Inbox();
  const read = async () => {
    let text = '';
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
      text += piece;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const lines = text.slice(0, end).split('\n');
        text = text.slice(end + 2);
        const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
        const data = field('data');
        if (data === undefined) continue;
        const parsed = JSON.parse(data) as Record<string, unknown>;
        const event = parsed['jsonrpc']
          ? ((parsed['method'] as string | undefined) ?? 'response')
          : (field('event') ?? 'message');
        inbox.push({ event, data: parsed });
      }
    }
  };
  // A stream that is cut rejects the read; that is an end like any other here.
  const ended = read()
    .catch(() => undefined)
    .then(() => {
      inbox.end();
      return { at: performance.now() };
    });
  return { next: (kind) => inbox.next(kind), ended, close: () => stop.abort() };
}

/** Opens a WebSocket of the demo upstream, whose messages name their `type`. */
export async function openSocket(
  url: string,
  headers: Record<string, string>,
): Promise<OpenStream & { send(text: string): void }> {
  const ws = new WebSocket(url.replace(/^http/, 'ws'), { headers });
  const inbox = new Inbox();
  ws.on('message', (data: Buffer) => {
    const parsed = JSON.parse(data.toString('utf8')) as Record<string, unknown>;
    inbox.push({ event: String(parsed['type']), data: parsed });
  });
  const ended = new Promise<{ at: number; code: number }>((resolve) => {
    ws.on('close', (code) => {
      inbox.end();
      resolve({ at: performance.now(), code });
    });
  });
  await new Promise<void>((resolve, reject) => {
    ws.once('open', () => resolve());
    ws.once('unexpected-response', (_request, response) =>
      reject(new Error(`upgrade returned ${response.statusCode}`)),
    );
    ws.once('error', reject);
  });
  // After the opening every failure ends in `close`.
  ws.on('error', () => ws.terminate());
  return { next: (kind) => inbox.next(kind), ended, close: () => ws.terminate(), send: (text) => ws.send(text) };
}
