import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { type DemoUpstream, LIMITS } from '../src/index.js';
import { identity, OTHER, PROJECT, start } from './start.js';

let demo: DemoUpstream & { lines: string[] };
beforeAll(async () => {
  demo = await start();
});
afterAll(() => demo.close());

const call = async (path: string, init: RequestInit = {}) => {
  const response = await fetch(demo.url + path, init);
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text ? JSON.parse(text) : undefined };
};
const send = (method: string, body: unknown, headers: Record<string, string> = {}) => ({
  method,
  body: typeof body === 'string' ? body : JSON.stringify(body),
  headers: { 'content-type': 'application/json', ...headers },
});

describe('identity', () => {
  it('shows the caller that the gateway named, and the request id in body and header', async () => {
    const { body, headers } = await call('/whoami', { headers: identity(PROJECT) });
    expect(body.caller).toEqual({
      tokenId: '01890000-0000-7000-8000-0000000000aa',
      owner: 'user:01890000-0000-7000-8000-0000000000bb',
      project: PROJECT,
      scopes: ['demo:read', 'demo:write'],
      requestId: 'req-1',
    });
    expect(headers.get('x-request-id')).toBe('req-1');
    expect(body.headers['x-latchkey-owner']).toBe('user:01890000-0000-7000-8000-0000000000bb');
  });

  it('shows of credentials only their presence, in responses and in the log', async () => {
    const { body } = await call('/whoami?access_token=s3cret-q', {
      headers: { authorization: 'Bearer s3cret-a', cookie: 'session=s3cret-c' },
    });
    expect(body.headers).toMatchObject({ authorization: '(present, not shown)', cookie: '(present, not shown)' });
    expect(JSON.stringify(body) + demo.lines.join('')).not.toContain('s3cret');
  });

  it('hides every project but the one the gateway named', async () => {
    const headers = identity(PROJECT);
    const { body } = await call('/projects', { headers });
    expect(body.items.map(({ id }: { id: string }) => id)).toEqual([PROJECT]);
    expect((await call(`/projects/${OTHER}/documents`, { headers })).status).toBe(404);
  });
});

describe('projects', () => {
  it('opens an empty project on first use of its UUID', async () => {
    const id = randomUUID();
    expect(await call(`/projects/${id}`)).toMatchObject({ status: 200, body: { id, documents: 0 } });
  });

  it('returns 404 for an id that is not a UUID', async () => {
    expect(await call('/projects/nope/documents')).toMatchObject({ status: 404, body: { code: 'not_found' } });
  });
});

describe('documents', () => {
  it('stores what was written, counts versions, and removes what was deleted', async () => {
    const base = `/projects/${randomUUID()}/documents`;
    const created = await call(base, send('POST', { title: 'One', body: 'first' }, identity()));
    expect(created).toMatchObject({
      status: 201,
      body: { title: 'One', version: 1, updatedBy: 'user:01890000-0000-7000-8000-0000000000bb' },
    });
    const path = `${base}/${created.body.id}`;
    expect(await call(path, send('PUT', { title: 'Two' }))).toMatchObject({
      status: 200,
      body: { title: 'Two', body: '', version: 2 },
    });
    expect(await call(path, send('PUT', { title: 'Three' }, { 'if-match': '"1"' }))).toMatchObject({ status: 412 });
    expect(await call(path)).toMatchObject({ status: 200, body: { title: 'Two' } });
    expect((await call(path, { method: 'DELETE' })).status).toBe(204);
    expect((await call(path)).status).toBe(404);
    expect((await call(path, { method: 'DELETE' })).status).toBe(404);
  });

  it('lists in pages that join to the whole', async () => {
    const base = `/projects/${randomUUID()}/documents`;
    for (const title of ['a', 'b', 'c']) await call(base, send('POST', { title }));
    const first = await call(`${base}?limit=2`);
    const second = await call(`${base}?limit=2&after=${first.body.next}`);
    expect([...first.body.items, ...second.body.items].map(({ title }) => title)).toEqual(['a', 'b', 'c']);
    expect(second.body.next).toBeNull();
  });

  it.each([
    ['title', { title: '' }],
    ['title', { title: 'x'.repeat(201) }],
    ['title', {}],
    ['body', { title: 'x', body: 7 }],
    ['colour', { title: 'x', colour: 'red' }],
    ['', []],
  ])('names the field %p when the content is %j', async (field, content) => {
    const { status, body, headers } = await call(`/projects/${PROJECT}/documents`, send('POST', content));
    expect(status).toBe(400);
    expect(headers.get('content-type')).toBe('application/problem+json');
    expect(body.errors.map((e: { field: string }) => e.field)).toContain(field);
  });

  it.each([
    ['limit', '?limit=0'],
    ['limit', '?limit=1e3'],
    ['limit', '?limit=101'],
    ['after', '?after=nothing'],
  ])('names %s for %s', async (field, query) => {
    const { status, body } = await call(`/projects/${PROJECT}/documents${query}`);
    expect({ status, field: body.errors[0].field }).toEqual({ status: 400, field });
  });

  it('rejects other media types, longer bodies, broken JSON, broken UTF-8 and other methods', async () => {
    const path = `/projects/${PROJECT}/documents`;
    const json = { 'content-type': 'application/json' };
    expect(
      await call(path, { method: 'POST', body: 'title=x', headers: { 'content-type': 'text/plain' } }),
    ).toMatchObject({ status: 415 });
    expect(await call(path, send('POST', { title: 'x', body: 'y'.repeat(70_000) }))).toMatchObject({ status: 413 });
    expect(await call(path, send('POST', '{"title":'))).toMatchObject({ status: 400, body: { code: 'invalid_json' } });
    expect(
      await call(path, { method: 'POST', body: Buffer.from('{"title":"\xff"}', 'latin1'), headers: json }),
    ).toMatchObject({ status: 400, body: { code: 'invalid_json' } });
    const patched = await call(path, { method: 'PATCH' });
    expect(patched.status).toBe(405);
    expect(patched.headers.get('allow')).toBe('GET, HEAD, POST');
  });

  it('stores no more documents than its limit', async () => {
    const base = `/projects/${randomUUID()}/documents`;
    for (let i = 0; i < LIMITS.documentsPerProjectMax; i++)
      await fetch(demo.url + base, send('POST', { title: `${i}` })).then((r) => r.arrayBuffer());
    expect(await call(base, send('POST', { title: 'one more' }))).toMatchObject({
      status: 507,
      body: { code: 'full' },
    });
  });
});

describe('files', () => {
  it('returns the bytes that were sent, and their hash', async () => {
    const path = `/projects/${PROJECT}/files/report.bin`;
    const bytes = randomBytes(3_000_000);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    expect(await call(path, { method: 'PUT', body: bytes })).toMatchObject({
      status: 201,
      body: { size: bytes.length, sha256 },
    });
    expect(await call(path, { method: 'PUT', body: bytes })).toMatchObject({ status: 200 });
    const response = await fetch(demo.url + path);
    expect(response.headers.get('content-disposition')).toContain('attachment');
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
    expect((await fetch(demo.url + path, { method: 'HEAD' })).headers.get('content-length')).toBe('3000000');
    expect((await call(path, { method: 'DELETE' })).status).toBe(204);
    expect((await call(path)).status).toBe(404);
  });

  it('accepts a chunked body, with chunks of any size', async () => {
    const pieces = Array.from({ length: 500 }, (_, i) => Buffer.from('x'.repeat((i * i) % 397 || 1)));
    const response = await new Promise<string>((resolve, reject) => {
      const upload = httpRequest(
        `${demo.url}/projects/${PROJECT}/files/pieces`,
        { method: 'PUT' },
        async (response) => {
          resolve((await response.setEncoding('utf8').toArray()).join(''));
        },
      );
      upload.on('error', reject);
      for (const piece of pieces) upload.write(piece);
      upload.end();
    });
    expect(JSON.parse(response).sha256).toBe(createHash('sha256').update(Buffer.concat(pieces)).digest('hex'));
  });

  it('refuses a file over its limit, with or without Content-Length', async () => {
    const path = `${demo.url}/projects/${PROJECT}/files/big`;
    const tooMuch = Buffer.alloc(LIMITS.fileBytesMax + 1);
    expect((await fetch(path, { method: 'PUT', body: tooMuch })).status).toBe(413);
    const undeclared = new ReadableStream({
      start(controller) {
        controller.enqueue(tooMuch);
        controller.close();
      },
    });
    expect((await fetch(path, { method: 'PUT', body: undeclared, duplex: 'half' } as RequestInit)).status).toBe(413);
    expect((await fetch(path)).status).toBe(404);
  });

  it('refuses names that mean something to a file system', async () => {
    for (const name of ['..%2fetc', '.hidden', 'a'.repeat(101)]) {
      expect(await call(`/projects/${PROJECT}/files/${name}`)).toMatchObject({
        status: 400,
        body: { errors: [{ field: 'name' }] },
      });
    }
  });
});

describe('paths', () => {
  it('serves the probes, and open documentation at any path under /docs', async () => {
    expect(await call('/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect(await call('/readyz')).toMatchObject({ status: 200, body: { status: 'ready' } });
    expect(await call('/docs/start')).toMatchObject({ status: 200 });
  });

  it('returns problem details for unknown paths, and 400 for what it cannot read', async () => {
    for (const path of ['/', '/nothing', '/constructor', '/projects/a/b/c/d', '//whoami']) {
      const { status, headers } = await call(path);
      expect({ path, status, type: headers.get('content-type') }).toEqual({
        path,
        status: 404,
        type: 'application/problem+json',
      });
    }
    expect((await call('/projects/%zz')).status).toBe(400);
  });
});
