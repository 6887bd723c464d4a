import { createLog, type DemoUpstream, startDemoUpstream } from '../src/index.js';

export const PROJECT = '01890000-0000-7000-8000-000000000001';
export const OTHER = '01890000-0000-7000-8000-000000000002';

/** A demo upstream of this test file's own, on a free port. Its log lines are recorded for tests to search. */
export async function start(): Promise<DemoUpstream & { lines: string[] }> {
  const lines: string[] = [];
  const log = createLog('trace', (line) => lines.push(line));
  const demo = await startDemoUpstream({
    port: 0,
    host: '127.0.0.1',
    log,
    allowedOrigins: ['https://api.example.org'],
    graceMs: 500,
  });
  return { ...demo, lines };
}

/** The identity headers as a gateway would send them. */
export function identity(project?: string): Record<string, string> {
  return {
    'x-latchkey-token-id': '01890000-0000-7000-8000-0000000000aa',
    'x-latchkey-owner': 'user:01890000-0000-7000-8000-0000000000bb',
    'x-latchkey-scopes': 'demo:read demo:write',
    'x-request-id': 'req-1',
    ...(project ? { 'x-latchkey-project': project } : {}),
  };
}

export interface SseEvent {
  id?: string;
  event?: string;
  data: unknown;
}

/** Events of a text/event-stream body, one after the other. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<SseEvent> {
  let text = '';
  for await (const piece of body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const fields = text
        .slice(0, end)
        .split('\n')
        .filter((line) => !line.startsWith(':'));
      text = text.slice(end + 2);
      if (fields.length === 0) continue;
      const field = (name: string) => fields.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      yield { id: field('id'), event: field('event'), data: JSON.parse(field('data') ?? 'null') };
    }
  }
}

/** The next event of that name; others before it are skipped. */
export async function nextEvent(
  events: AsyncGenerator<SseEvent>,
  name: string,
): Promise<SseEvent & { data: Record<string, unknown> }> {
  for (;;) {
    const { value, done } = await events.next();
    if (done) throw new Error(`the stream ended before an event ${name}`);
    if (value.event === name) return value as SseEvent & { data: Record<string, unknown> };
  }
}

/** The body as JSON. */
export async function jsonOf(response: Response) {
  return JSON.parse(await response.text());
}
