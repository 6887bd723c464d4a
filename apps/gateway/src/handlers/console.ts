import { hash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { CallerRequest } from '../engine/index.js';

/** The console may load and call only its own origin. */
const CONSOLE_CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const FILES_MAX = 2_000;
const BYTES_MAX = 64 * 1024 * 1024;

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.txt': 'text/plain; charset=utf-8',
};

/** Content codings that the console's build leaves beside a file (`x.js.br`), the preferred one first. */
const CODINGS = [
  { name: 'br', ending: '.br' },
  { name: 'gzip', ending: '.gz' },
] as const;

interface Representation {
  readonly body: Buffer;
  readonly etag: string;
  /** Header lines, each with its CRLF. */
  readonly lines: string;
}

interface StaticFile extends Representation {
  /** The same, compressed at build time. */
  readonly coded: readonly (Representation & { readonly coding: string })[];
}

/** The console's built files, served from memory; without them, a page that links to the API's description. */
export class Console {
  readonly #files = new Map<string, StaticFile>();

  /** @param folder of the built console; can be absent */
  constructor(folder: string) {
    if (existsSync(path.join(folder, 'index.html'))) this.#read(folder);
    else this.#files.set('/', { ...represent(BUILT_IN_PAGE, 'no-cache'), coded: [] });
  }

  /** True for a path that is one of the console's files. */
  has(path: string): boolean {
    return this.#files.has(path);
  }

  handle(request: CallerRequest, path: string): void {
    const file = this.#files.get(path)!;
    const { head } = request;
    if (head.method !== 'GET' && head.method !== 'HEAD') {
      const headers = { allow: 'GET, HEAD' };
      const detail = 'This resource supports GET and HEAD only.';
      return void request.refuse({ code: 'method_not_allowed', detail, headers });
    }
    const accepted = acceptedCodings(head.header('accept-encoding'));
    const chosen = file.coded.find(({ coding }) => accepted.has(coding)) ?? file;
    if (head.header('if-none-match') === chosen.etag) return void request.respond(304, 'Not Modified', chosen.lines);
    request.respond(200, 'OK', chosen.lines, chosen.body);
  }

  #read(folder: string): void {
    const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    if (entries.length > FILES_MAX) throw new Error(`CONSOLE_DIR ${folder} has more than ${FILES_MAX} files`);
    let bytes = 0;
    const read = (file: string): Buffer => {
      const body = readFileSync(file);
      bytes += body.length;
      if (bytes > BYTES_MAX) throw new Error(`CONSOLE_DIR ${folder} has more than ${BYTES_MAX} bytes`);
      return body;
    };
    for (const entry of entries) {
      const file = path.join(entry.parentPath, entry.name);
      const type = TYPES[path.extname(entry.name)];
      if (!type) continue;
      const url = `/${path.relative(folder, file).split(path.sep).join('/')}`;
      const hashed = /[.-][A-Za-z0-9_-]{8,}\.[a-z0-9]+$/.test(entry.name) && url.startsWith('/assets/');
      const caching = hashed ? 'public, max-age=31536000, immutable' : 'no-cache';
      const coded = CODINGS.filter(({ ending }) => existsSync(file + ending)).map(({ name, ending }) => ({
        coding: name,
        ...represent(read(file + ending), caching, type, { 'content-encoding': name, vary: 'Accept-Encoding' }),
      }));
      const plain = represent(read(file), caching, type, coded.length ? { vary: 'Accept-Encoding' } : {});
      const served = { ...plain, coded };
      this.#files.set(url, served);
      if (url === '/index.html') this.#files.set('/', served);
    }
  }
}

/** Content codings in `Accept-Encoding` (RFC 9110 section 12.5.3) without `q=0`; `*` and preferences are ignored. */
export function acceptedCodings(header = ''): Set<string> {
  const accepted = new Set<string>();
  for (const word of header.toLowerCase().split(',')) {
    const [name = '', ...parameters] = word.split(';');
    const weight = parameters.map((parameter) => parameter.trim()).find((parameter) => parameter.startsWith('q='));
    if (weight === undefined || Number(weight.slice(2)) > 0) accepted.add(name.trim());
  }
  return accepted;
}

function represent(
  body: Buffer | string,
  caching: string,
  type = TYPES['.html']!,
  more: Record<string, string> = {},
): Representation {
  const bytes = Buffer.from(body);
  const etag = `"${hash('sha256', bytes, 'base64url').slice(0, 22)}"`;
  const headers = {
    'content-type': type,
    'cache-control': caching,
    etag,
    'content-security-policy': CONSOLE_CSP,
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    'permissions-policy': 'camera=(), geolocation=(), microphone=()',
    ...more,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return { body: bytes, etag, lines: lines.join('') };
}

const BUILT_IN_PAGE = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Latchkey</title></head>
<body>
<h1>Latchkey</h1>
<p>This gateway checks API tokens. The console's files are missing (<code>CONSOLE_DIR</code>).</p>
<ul>
<li><a href="/v1/docs">The management API</a>, also as <a href="/v1/openapi.json">OpenAPI</a></li>
<li><a href="/readyz">Is the gateway ready?</a></li>
</ul>
</body>
</html>
`;
