import { sees } from './caller.js';
import { byMethod, type Exchange, Problem, write } from './http.js';
import { projectInPath } from './rest.js';
import type { Change } from './store.js';

export const TICK_MS = 1_000;
/** A reader this far behind is cut; it reconnects with Last-Event-ID and misses nothing. */
const CHANGES_WAITING_MAX = 100;

function frame(event: string, data: unknown, id?: string): string {
  return `${id ? `id: ${id}\n` : ''}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/**
 * `GET /events` and `GET /projects/{project}/events`: server-sent events. First `hello` with the caller, then `change`
 * for each document change (with an id) and `tick` each second. With Last-Event-ID the changes missed come first, or
 * `reset` when they are no longer known, upon which a reader should read its documents anew.
 */
export async function events(exchange: Exchange): Promise<void> {
  const { request, response, caller, store, path, signal } = exchange;
  byMethod(request, { GET: true });
  const project = path[0] === 'projects' ? projectInPath(exchange).id : null;
  const concerns = (change: Change) =>
    (project === null || change.projectId === project) && sees(caller, change.projectId);
  const lastId = request.headers['last-event-id']?.toString();
  if (lastId && lastId.length > 64) {
    throw new Problem(400, 'invalid_request', 'Last-Event-ID is none that was sent from here.', {
      errors: [{ field: 'Last-Event-ID', message: 'must be at most 64 characters' }],
    });
  }

  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  });
  if (request.method === 'HEAD') return void response.end();

  const waiting: string[] = [frame('hello', { caller, project })];
  const missed = lastId ? store.changesAfter(lastId) : [];
  if (missed === undefined) waiting.push(frame('reset', { because: 'Last-Event-ID is not known here any more' }));
  for (const change of missed ?? []) if (concerns(change)) waiting.push(frame('change', change, change.id));

  let wake: (() => void) | undefined;
  let overrun = false;
  const push = (piece: string) => {
    overrun ||= waiting.length >= CHANGES_WAITING_MAX + (missed?.length ?? 0);
    if (!overrun) waiting.push(piece);
    wake?.();
  };
  const stopListening = store.onChange((change) => concerns(change) && push(frame('change', change, change.id)));
  const ticker = setInterval(
    () => waiting.length === 0 && push(frame('tick', { at: new Date().toISOString() })),
    TICK_MS,
  );
  const onAbort = () => wake?.();
  signal.addEventListener('abort', onAbort);
  try {
    while (!signal.aborted && !overrun) {
      const next = waiting.shift();
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      } else if (!(await write(response, next, signal))) break;
    }
  } finally {
    clearInterval(ticker);
    stopListening();
    signal.removeEventListener('abort', onAbort);
    response.end();
  }
}
