import { createHash } from 'node:crypto';
import { headersForPeople, sees } from './caller.js';
import { byMethod, type Exchange, notFound, Problem, readBody, readJson, sendJson, write } from './http.js';
import { type Read, readDocumentContent, readProjectId, readWhole } from './input.js';
import { type Document, isProjectId, LIMITS } from './store.js';

const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

function must<T>(read: Read<T>): T {
  if (read.ok) return read.value;
  const detail = read.errors.map(({ field, message }) => `${field || 'The body'} ${message}`).join('; ');
  throw new Problem(400, 'invalid_request', `${detail}.`, { errors: read.errors });
}

/** The project the path names, if this caller sees it. For others it does not exist. */
export function projectInPath({ path, caller, store }: Pick<Exchange, 'path' | 'caller' | 'store'>) {
  const given = path[1] ?? '';
  if (!isProjectId(given)) throw notFound('project of that id; a project id is a UUID');
  const id = must(readProjectId(given));
  if (!sees(caller, id)) throw notFound('project of that id for this token');
  return store.project(id);
}

/** `GET /whoami`: the identity the gateway vouched for, and the headers that arrived. */
export function whoami(exchange: Exchange): void {
  byMethod(exchange.request, { GET: true });
  const { caller, request } = exchange;
  sendJson(exchange, 200, {
    caller,
    method: request.method,
    url: request.url?.split('?', 1)[0],
    headers: headersForPeople(request.headers),
  });
}

/** `GET /docs/…`: open to all; lists the endpoints. */
export function docs(exchange: Exchange): void {
  byMethod(exchange.request, { GET: true });
  sendJson(exchange, 200, {
    name: 'Latchkey demo upstream',
    calls: {
      'GET /whoami': 'the identity the gateway vouched for, and the headers it sent',
      'GET /projects': 'projects',
      'GET|POST /projects/{project}/documents': 'documents: {title, body}',
      'GET|PUT|DELETE /projects/{project}/documents/{id}': 'one document',
      'GET|PUT|DELETE /projects/{project}/files/{name}': `a file of up to ${LIMITS.fileBytesMax} bytes, streamed`,
      'GET /events, /projects/{project}/events': 'server-sent events',
      'GET /ws, /projects/{project}/ws': 'WebSocket',
      'POST /graphql': 'GraphQL',
      'POST /mcp': 'Model Context Protocol, Streamable HTTP',
    },
  });
}

/** `GET /projects` and `GET /projects/{project}`. */
export function projects(exchange: Exchange): void {
  byMethod(exchange.request, { GET: true });
  const { caller, store, path } = exchange;
  if (path.length === 1) {
    sendJson(exchange, 200, { items: store.projects().filter(({ id }) => sees(caller, id)), caller });
    return;
  }
  const project = projectInPath(exchange);
  sendJson(exchange, 200, { ...project, documents: store.documents(project.id).length, caller });
}

/** `GET|POST /projects/{project}/documents`. Lists are cut at `limit` (1 to 100, 50 by default) and go on `after` an id. */
export async function documents(exchange: Exchange): Promise<void> {
  const { request, url, caller, store } = exchange;
  const project = projectInPath(exchange);
  await byMethod(request, {
    GET: () => {
      const limit = must(readWhole(url.searchParams.get('limit'), 'limit', { min: 1, max: 100, standard: 50 }));
      const after = url.searchParams.get('after');
      const all = store.documents(project.id);
      const from = after === null ? 0 : all.findIndex(({ id }) => id === after) + 1;
      if (after !== null && from === 0) {
        throw new Problem(400, 'invalid_request', 'after names no document of this project; begin without it.', {
          errors: [{ field: 'after', message: 'names no document of this project' }],
        });
      }
      const items = all.slice(from, from + limit);
      sendJson(exchange, 200, { items, next: from + limit < all.length ? items.at(-1)!.id : null, caller });
    },
    POST: async () => {
      const content = must(readDocumentContent(await readJson(request)));
      const created = store.createDocument(project.id, content, caller.owner);
      if ('refused' in created) throw new Problem(507, 'full', created.detail);
      sendJson(exchange, 201, { ...created, caller }, { etag: etag(created) });
    },
  })();
}

/** `GET|PUT|DELETE /projects/{project}/documents/{id}`. PUT replaces title and body; `If-Match` is honoured. */
export async function document(exchange: Exchange): Promise<void> {
  const { request, caller, store, path } = exchange;
  const project = projectInPath(exchange);
  const found = () => {
    const current = store.document(project.id, path[3]!);
    if (!current) throw notFound('document of that id in this project');
    return current;
  };
  const unchanged = () => {
    const wanted = request.headers['if-match'];
    if (wanted && wanted !== '*' && wanted !== etag(found())) {
      throw new Problem(412, 'changed_meanwhile', 'The document is no longer the one If-Match names; read it again.');
    }
  };
  await byMethod(request, {
    GET: () => sendJson(exchange, 200, { ...found(), caller }, { etag: etag(found()) }),
    PUT: async () => {
      found();
      const content = must(readDocumentContent(await readJson(request)));
      unchanged();
      const updated = store.updateDocument(project.id, path[3]!, content, caller.owner);
      if (!updated) throw notFound('document of that id in this project');
      sendJson(exchange, 200, { ...updated, caller }, { etag: etag(updated) });
    },
    DELETE: () => {
      found();
      unchanged();
      store.deleteDocument(project.id, path[3]!);
      exchange.response.writeHead(204).end();
    },
  })();
}

function etag(document: Document): string {
  return `"${document.version}"`;
}

/** `GET|PUT|DELETE /projects/{project}/files/{name}`: bytes as they come, up to 8 MiB, never all in one piece. */
export async function file(exchange: Exchange): Promise<void> {
  const { request, response, caller, store, path, signal } = exchange;
  const project = projectInPath(exchange);
  const name = path[3]!;
  if (!FILE_NAME.test(name)) {
    throw new Problem(
      400,
      'invalid_request',
      `A file name is 1 to 100 of A-Z a-z 0-9 . _ - and begins with a letter or digit.`,
      {
        errors: [{ field: 'name', message: `must match ${FILE_NAME.source}` }],
      },
    );
  }
  await byMethod(request, {
    GET: async () => {
      const stored = store.file(project.id, name);
      if (!stored) throw notFound('file of that name in this project');
      // Uploads are served as plain bytes: a page stored here must not run in anyone's browser.
      response.writeHead(200, {
        'content-type': 'application/octet-stream',
        'content-length': stored.size,
        'content-disposition': `attachment; filename="${name}"`,
        'x-content-type-options': 'nosniff',
        'cache-control': 'no-store',
        etag: `"${stored.sha256}"`,
      });
      if (request.method !== 'HEAD') {
        for (const chunk of stored.chunks) {
          // A truncated download must not look complete to the caller.
          if (await write(response, chunk, signal)) continue;
          response.destroy();
          return;
        }
      }
      response.end();
    },
    PUT: async () => {
      const chunks = await readBody(request, LIMITS.fileBytesMax);
      const hash = createHash('sha256');
      for (const chunk of chunks) hash.update(chunk);
      const stored = {
        name,
        size: chunks.reduce((sum, chunk) => sum + chunk.length, 0),
        sha256: hash.digest('hex'),
        chunks,
      };
      const outcome = store.putFile(project.id, stored);
      if ('refused' in outcome) throw new Problem(507, 'full', outcome.detail);
      sendJson(exchange, outcome.replaced ? 200 : 201, { name, size: stored.size, sha256: stored.sha256, caller });
    },
    DELETE: () => {
      if (!store.deleteFile(project.id, name)) throw notFound('file of that name in this project');
      response.writeHead(204).end();
    },
  })();
}
